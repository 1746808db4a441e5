// Zooming and searching in a flame graph's SVG file.
const all = [...document.querySelectorAll("g")], W = 1200, found = document.getElementById("found");
const at = g => ({ x: +g.dataset.x, w: +g.dataset.w, r: +g.dataset.r });
function zoom(to) {
  const z = at(to);
  for (const g of all) {
    const f = at(g), rect = g.querySelector("rect"), text = g.querySelector("text");
    const above = f.r < z.r && f.x <= z.x + .02 && f.x + f.w >= z.x + z.w - .02;
    const inside = f.r >= z.r && f.x >= z.x - .02 && f.x + f.w <= z.x + z.w + .02;
    g.style.display = above || inside ? "" : "none";
    g.classList.toggle("up", above);
    const x = above ? 0 : (f.x - z.x) * W / z.w, w = above ? W : f.w * W / z.w;
    rect.setAttribute("x", x); rect.setAttribute("width", w); text.setAttribute("x", x + 3);
    const n = Math.floor(w / 7), name = g.dataset.n;
    text.textContent = n < 3 ? "" : name.length <= n ? name : name.slice(0, n - 2) + "..";
  }
}
for (const g of all) g.addEventListener("click", () => zoom(g));
addEventListener("keydown", event => {
  if (event.key === "Escape") zoom(all[0]);
  if (event.key !== "/") return;
  event.preventDefault();
  const word = (prompt("Search for") || "").toLowerCase();
  let sum = 0, end = -1;
  for (const g of all) {
    const f = at(g), hit = word && g.dataset.n.toLowerCase().includes(word), rect = g.querySelector("rect");
    rect.dataset.fill ??= rect.getAttribute("fill");
    rect.setAttribute("fill", hit ? "#e06bd0" : rect.dataset.fill);
    if (hit && f.x >= end - .02) { sum += f.w; end = f.x + f.w; }
  }
  found.textContent = word ? `"${word}" is in ${(sum / W * 100).toFixed(1)} % of the samples` : "";
});
