"use strict";
document.documentElement.classList.add("js");

// Pictures: one over the other, with a slider between the first and the chosen one.
for (const figure of document.querySelectorAll(".picture")) {
  const controls = figure.querySelector(".controls");
  if (!controls) continue;
  const layers = figure.querySelectorAll(".layer");
  const slider = controls.querySelector("input[type=range]");
  const box = figure.querySelector(".layers");
  const show = () => {
    const chosen = controls.querySelector("input[type=radio]:checked");
    layers.forEach((layer, place) => {
      layer.classList.toggle("under", place === 0);
      layer.classList.toggle("over", place === Number(chosen.value));
    });
    box.style.setProperty("--cut", slider.value + "%");
    slider.setAttribute("aria-valuetext", slider.value + " percent " + layers[0].textContent);
  };
  controls.hidden = false;
  figure.classList.add("stacked");
  controls.addEventListener("input", show);
  const drag = (event) => {
    const place = box.getBoundingClientRect();
    slider.value = Math.round((100 * (event.clientX - place.left)) / place.width);
    show();
  };
  box.addEventListener("pointerdown", (event) => {
    box.setPointerCapture(event.pointerId);
    drag(event);
  });
  box.addEventListener("pointermove", (event) => {
    if (box.hasPointerCapture(event.pointerId)) drag(event);
  });
  show();
}

// Tables: a click on a heading sorts by it, the second one the other way round.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const before = heading.getAttribute("aria-sort");
      const number = heading.classList.contains("number");
      const down = before ? before === "ascending" : number;
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.key;
      const rows = [...table.tBodies[0].rows];
      rows.sort((one, two) => {
        const [a, b] = [key(one), key(two)];
        if (!number) return a.localeCompare(b) * (down ? -1 : 1);
        const [x, y] = [Number(a), Number(b)];
        if (a === "" || b === "" || isNaN(x) || isNaN(y)) return (a === "" || isNaN(x)) - (b === "" || isNaN(y));
        return (x - y) * (down ? -1 : 1);
      });
      table.tBodies[0].append(...rows);
    });
  });
}

// On paper nothing can be unfolded.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((folded) => (folded.open = true)));

// A page of a training that still runs reads itself again, unless somebody is just looking at something.
const seconds = Number(document.body.dataset.refresh || 0);
if (seconds) {
  let touched = 0;
  for (const kind of ["pointerdown", "keydown", "input"]) document.addEventListener(kind, () => (touched = Date.now()));
  setInterval(() => {
    if (!document.hidden && Date.now() - touched > 1000 * seconds) location.reload();
  }, 1000 * seconds);
}
