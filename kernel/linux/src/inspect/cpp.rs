//! Names of C++ functions as their source has them, without parameters and template arguments.
//!
//! For people who look at stacks that is enough, and a twentieth of what the whole of the mangling (Itanium C++ ABI,
//! section 5.1) would add to the kernel. What is not understood is left as it is.
use alloc::format;
use alloc::string::{String, ToString};

/// `v8::internal::Heap::Collect` of `_ZN2v88internal4Heap7CollectEv`; `None` for what is no such name, or a rare one.
pub fn demangle(symbol: &str) -> Option<String> {
    // What a compiler has made of a function: `.isra.0`, `.cold`.
    let mangled = symbol.split('.').next()?.strip_prefix("_Z")?;
    let mut reader = Reader(mangled.as_bytes());
    let mut name = String::new();
    let nested = reader.take(b"N");
    if nested {
        while reader.any(b"rVKRO") {}
    }
    loop {
        let component = reader.component(&name)?;
        if component.starts_with('<') {
            name.push_str(&component);
        } else {
            if !name.is_empty() {
                name.push_str("::");
            }
            name.push_str(&component);
        }
        let more = if nested {
            !reader.take(b"E")
        } else {
            // `St` is a part only, and arguments may follow.
            name == "std" || reader.0.first() == Some(&b'I')
        };
        if !more {
            return Some(name);
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, word: &[u8]) -> bool {
        let rest = self.0.strip_prefix(word);
        rest.map(|rest| self.0 = rest).is_some()
    }

    fn any(&mut self, letters: &[u8]) -> bool {
        self.byte_if(|byte| letters.contains(&byte)).is_some()
    }

    fn byte_if(&mut self, wanted: impl Fn(u8) -> bool) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        wanted(*first).then(|| {
            self.0 = rest;
            *first
        })
    }

    /// One part of a name; `before` is what there is of it.
    fn component(&mut self, before: &str) -> Option<String> {
        // Not seen by other files; says nothing to a person.
        if self.0.first() == Some(&b'L') {
            self.take(b"L");
        }
        let component = match self.0 {
            [b'0'..=b'9', ..] => self.source_name()?,
            [b'I', ..] => {
                self.skip_bracket()?;
                "<..>".into()
            }
            [b'S', b't', ..] => {
                self.take(b"St");
                "std".into()
            }
            [b'U', b'l', ..] => {
                self.take(b"U");
                self.skip_bracket()?;
                while self.byte_if(|byte| byte.is_ascii_digit()).is_some() {}
                self.take(b"_").then(|| "{lambda}".to_string())?
            }
            [kind @ (b'C' | b'D'), b'0'..=b'5', ..] => {
                // A class with arguments names its constructor without.
                let class = before.trim_end_matches("<..>").rsplit("::").next();
                let class = class.filter(|class| !class.is_empty())?;
                let destructor = *kind == b'D';
                self.0 = &self.0[2..];
                format!("{}{class}", if destructor { "~" } else { "" })
            }
            [first, second, ..] => {
                let (_, operator) = OPERATORS
                    .iter()
                    .find(|(code, _)| *code == [*first, *second])?;
                self.0 = &self.0[2..];
                format!("operator{operator}")
            }
            _ => return None,
        };
        while self.take(b"B") {
            // An ABI's tag.
            self.source_name()?;
        }
        Some(component)
    }

    /// A length and so many letters.
    fn source_name(&mut self) -> Option<String> {
        let mut len = 0usize;
        while let Some(digit) = self.byte_if(|byte| byte.is_ascii_digit()) {
            len = len.checked_mul(10)?.checked_add((digit - b'0').into())?;
        }
        let (name, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        match name {
            [] => None,
            _ if name.starts_with(b"_GLOBAL__N") => Some("(anonymous namespace)".into()),
            _ => Some(core::str::from_utf8(name).ok()?.into()),
        }
    }

    /// Passes over what a letter opens and an `E` closes.
    fn skip_bracket(&mut self) -> Option<()> {
        // A bit for each bracket that is open: it is of a literal, whose digits are no length.
        let mut literals: u64 = 0;
        let mut open = 0u32;
        loop {
            let first = *self.0.first()?;
            if first.is_ascii_digit() && literals & 1 == 0 {
                self.source_name()?;
                continue;
            }
            self.0 = &self.0[1..];
            match first {
                b'E' => {
                    open -= 1;
                    literals >>= 1;
                    if open == 0 {
                        return Some(());
                    }
                }
                b'N' | b'I' | b'X' | b'J' | b'F' | b'L' | b'l' if opens(first, open) => {
                    if open == u64::BITS {
                        return None;
                    }
                    open += 1;
                    literals = literals << 1 | u64::from(first == b'L');
                }
                // A substitution, or a parameter of the template: to its underscore.
                b'S' if self.any(b"tabsiod") => {}
                b'S' | b'T' => {
                    while self
                        .byte_if(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
                        .is_some()
                    {}
                    self.take(b"_").then_some(())?;
                }
                _ if open == 0 => return None,
                _ => {}
            }
        }
    }
}

/// Whether a letter opens a bracket: the `l` of a lambda does so at the outside, and is `long` further in.
fn opens(letter: u8, open: u32) -> bool {
    letter != b'l' || open == 0
}

const OPERATORS: &[([u8; 2], &str)] = &[
    (*b"nw", " new"),
    (*b"na", " new[]"),
    (*b"dl", " delete"),
    (*b"da", " delete[]"),
    (*b"cl", "()"),
    (*b"ix", "[]"),
    (*b"pt", "->"),
    (*b"aS", "="),
    (*b"eq", "=="),
    (*b"ne", "!="),
    (*b"lt", "<"),
    (*b"gt", ">"),
    (*b"le", "<="),
    (*b"ge", ">="),
    (*b"ls", "<<"),
    (*b"rs", ">>"),
    (*b"pl", "+"),
    (*b"mi", "-"),
    (*b"ml", "*"),
    (*b"dv", "/"),
    (*b"rm", "%"),
    (*b"pL", "+="),
    (*b"mI", "-="),
    (*b"pp", "++"),
    (*b"mm", "--"),
    (*b"nt", "!"),
    (*b"de", "*"),
    (*b"ad", "&"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_source() {
        for (mangled, name) in [
            ("_Z3runi", "run"),
            ("_ZL3runv", "run"),
            ("_ZN4node10BaseObjectD2Ev", "node::BaseObject::~BaseObject"),
            (
                "_ZN4node10BaseObjectC1Ev.cold",
                "node::BaseObject::BaseObject",
            ),
            (
                "_ZN2v88internal8compiler12GraphReducer10ReduceNodeEPNS1_4NodeE",
                "v8::internal::compiler::GraphReducer::ReduceNode",
            ),
            (
                "_ZN2v88internal8compiler22RepresentationSelector9VisitNodeILNS1_5PhaseE1EEEvPNS1_4NodeENS1_10TruncationEPNS1_18SimplifiedLoweringE.isra.0",
                "v8::internal::compiler::RepresentationSelector::VisitNode<..>",
            ),
            (
                "_ZN2v88internal14LookupIterator5StartILb1EEEvv",
                "v8::internal::LookupIterator::Start<..>",
            ),
            (
                "_ZN2v88internal8compiler12_GLOBAL__N_114UpdateLivenessILb1EEEvv",
                "v8::internal::compiler::(anonymous namespace)::UpdateLiveness<..>",
            ),
            ("_ZNKSt6vectorIiSaIiEE4sizeEv", "std::vector<..>::size"),
            ("_ZNSt6vectorIiSaIiEEC2Ev", "std::vector<..>::vector"),
            ("_ZSt4sortIPiEvT_S1_", "std::sort<..>"),
            ("_ZNKSt8functionIFvvEEclEv", "std::function<..>::operator()"),
            ("_ZN1AeqERKS_", "A::operator=="),
            ("_ZN3foo3barB5cxx11Ev", "foo::bar"),
            ("_Znwm", "operator new"),
            ("_ZN1AUlvE_clEv", "A::{lambda}::operator()"),
            ("_ZN1AUlilE0_clEv", "A::{lambda}::operator()"),
        ] {
            assert_eq!(demangle(mangled).as_deref(), Some(name), "{mangled}");
        }
    }

    #[test]
    fn what_is_not_understood_is_left_alone() {
        for symbol in [
            "",
            "_Z",
            "main",
            "_ZN",
            "_ZNE",
            "_ZN3fo",
            "_ZTV3foo",
            "_ZZ4mainE1x",
            "_ZN1AIE",
            "_ZN99999999999999999999999x",
            "_ZN1AIL",
            "_ZN0E",
            "_ZS1_",
            "_ZC1Ev",
            "_ZN1AU",
        ] {
            assert_eq!(demangle(symbol), None, "{symbol}");
        }
        // Damaged names of all kinds: no answer is wrong but a panic.
        let whole =
            "_ZN2v88internal8compiler22RepresentationSelector9VisitNodeILNS1_5PhaseE1EEEvUlvE_clSt";
        let letters = b"NEILSTZ0123_CDUlvx";
        let mut seed = 1u64;
        for _ in 0..200_000 {
            let mut bytes = whole.as_bytes().to_vec();
            for _ in 0..4 {
                seed = seed
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                let (at, letter) = ((seed >> 33) as usize, (seed >> 13) as usize);
                let at = 2 + at % (bytes.len() - 2);
                bytes[at] = letters[letter % letters.len()];
            }
            let _ = demangle(core::str::from_utf8(&bytes).unwrap_or_default());
        }
    }
}
