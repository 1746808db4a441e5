//! A profile's folded stacks (`a;b;c 12`, a line a stack) as a flame graph in one SVG file, and as a table of functions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Pixels: the picture's width, a row's height, and the least width of a frame that is drawn.
const WIDTH: f64 = 1200.0;
const ROW: usize = 17;
const LEAST: f64 = 0.3;
/// Above the graph: the title and what is searched for.
const HEAD: usize = 48;
/// What marks a function of the kernel.
const KERNEL: &str = "_[k]";

/// Stacks with a common beginning, joined.
#[derive(Debug, Default)]
pub struct Tree {
    /// Samples in this frame and below it.
    samples: u64,
    children: BTreeMap<String, Tree>,
}

/// How often a function was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Samples that were in it itself.
    pub own: u64,
    /// Samples that were in it or in what it called.
    pub total: u64,
}

impl Tree {
    /// Reads folded stacks. Lines without a count are left out.
    pub fn parse(folded: &str) -> Tree {
        let mut root = Tree::default();
        for line in folded.lines() {
            let Some((stack, count)) = line.rsplit_once(' ') else {
                continue;
            };
            let Ok(count) = count.parse::<u64>() else {
                continue;
            };
            root.samples += count;
            let mut node = &mut root;
            for name in stack.split(';') {
                node = node.children.entry(name.to_string()).or_default();
                node.samples += count;
            }
        }
        root
    }

    /// All samples.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The functions, most samples of their own first. The outermost frame, the thread, is none.
    pub fn functions(&self) -> Vec<Function> {
        let mut counts = BTreeMap::new();
        for thread in self.children.values() {
            thread.count(&mut counts, &mut BTreeSet::new());
        }
        let mut out: Vec<Function> = counts
            .into_iter()
            .map(|(name, (own, total))| Function {
                name: name.to_string(),
                own,
                total,
            })
            .collect();
        out.sort_by(|a, b| (b.own, b.total, &a.name).cmp(&(a.own, a.total, &b.name)));
        out
    }

    /// Adds up below this frame; `open` are the functions it is called from, so that recursion counts once.
    fn count<'a>(
        &'a self,
        counts: &mut BTreeMap<&'a str, (u64, u64)>,
        open: &mut BTreeSet<&'a str>,
    ) {
        for (name, child) in &self.children {
            let below: u64 = child.children.values().map(|c| c.samples).sum();
            let first = open.insert(name);
            let entry = counts.entry(name).or_default();
            entry.0 += child.samples - below;
            if first {
                entry.1 += child.samples;
            }
            child.count(counts, open);
            if first {
                open.remove(name.as_str());
            }
        }
    }

    fn depth(&self) -> usize {
        self.children
            .values()
            .map(|c| 1 + c.depth())
            .max()
            .unwrap_or(0)
    }

    /// The flame graph as one SVG file that needs nothing else: callers on top, a click on a frame zooms in, a click on one of
    /// its callers goes back out.
    pub fn svg(&self, title: &str) -> String {
        let height = HEAD + (self.depth() + 1) * ROW + 8;
        let mut out = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             width=\"{WIDTH}\" height=\"{height}\" font-family=\"monospace\" font-size=\"11\">\n\
             <style>rect {{ stroke: #fff; stroke-width: .5 }} g:hover > rect {{ stroke: #000 }} g {{ cursor: pointer }} \
             .up {{ opacity: .5 }} text {{ pointer-events: none; fill: #111 }} #found {{ fill: #a0208f }}</style>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
             <text x=\"8\" y=\"20\" font-size=\"15\">{}</text>\n<text id=\"found\" x=\"8\" y=\"38\">Click to zoom, press / to search. Blue is the kernel.</text>\n",
            escaped(title)
        );
        self.draw(&mut out, "all", 0.0, WIDTH, 0, self.samples.max(1));
        let _ = writeln!(out, "<script><![CDATA[{SCRIPT}]]></script>\n</svg>");
        out
    }

    fn draw(&self, out: &mut String, name: &str, x: f64, width: f64, row: usize, all: u64) {
        if width < LEAST {
            return;
        }
        let kernel = name.ends_with(KERNEL);
        let shown = name.trim_end_matches(KERNEL);
        let y = HEAD + row * ROW;
        let colour = colour(name, row, kernel);
        // Seven pixels a letter.
        let letters = (width / 7.0) as usize;
        let label: String = match letters {
            0..=2 => String::new(),
            _ if shown.chars().count() <= letters => shown.to_string(),
            _ => shown
                .chars()
                .take(letters - 2)
                .chain("..".chars())
                .collect(),
        };
        let _ = writeln!(
            out,
            "<g data-n=\"{0}\" data-x=\"{x:.2}\" data-w=\"{width:.2}\" data-r=\"{row}\"><title>{0}: {1} samples, {2:.1} %</title>\
             <rect x=\"{x:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"{ROW}\" fill=\"{colour}\"/><text x=\"{3:.2}\" y=\"{4}\">{5}</text></g>",
            escaped(shown),
            self.samples,
            self.samples as f64 * 100.0 / all as f64,
            x + 3.0,
            y + 12,
            escaped(&label)
        );
        let mut at = x;
        for (name, child) in &self.children {
            let share = width * child.samples as f64 / self.samples.max(1) as f64;
            child.draw(out, name, at, share, row + 1, all);
            at += share;
        }
    }
}

/// Warm for the program, blue for the kernel, grey for the whole; the same function has the same colour everywhere.
fn colour(name: &str, row: usize, kernel: bool) -> String {
    let hash = name
        .bytes()
        .fold(7u32, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
    let shift = hash % 22;
    match (row, kernel) {
        (0, _) => "#c4cccf".to_string(),
        (_, true) => format!("hsl({}, 55%, {}%)", 195 + shift, 66 + shift % 9),
        (_, false) => format!("hsl({}, 80%, {}%)", 22 + shift, 62 + shift % 9),
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML has no way to write most of the others.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Zooming and searching.
const SCRIPT: &str = include_str!("flame.js");

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDED: &str = "main;run;work 6\nmain;run;run;work 2\nmain;idle_[k] 1\nbad\nworse x\n";

    #[test]
    fn functions_count_once_in_recursion() {
        let tree = Tree::parse(FOLDED);
        assert_eq!(tree.samples(), 9);
        let found = |name: &str| {
            let all = tree.functions();
            let f = all.into_iter().find(|f| f.name == name).unwrap();
            (f.own, f.total)
        };
        assert_eq!(found("work"), (8, 8));
        assert_eq!(found("run"), (0, 8));
        assert_eq!(found("idle_[k]"), (1, 1));
        assert_eq!(tree.functions()[0].name, "work");
    }

    #[test]
    fn the_picture_is_whole_and_names_are_only_names() {
        let svg = Tree::parse("main;a<b>&\"c 3\nmain;x_[k] 1").svg("t & u");
        assert!(svg.contains("t &amp; u"));
        assert!(svg.contains("a&lt;b&gt;&amp;&quot;c: 3 samples, 75.0 %"));
        assert!(svg.contains("<title>x: 1 samples, 25.0 %</title>"));
        assert!(svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<g ").count(), 4);
        assert_eq!(Tree::parse("").svg("none").matches("<g ").count(), 1);
    }
}
