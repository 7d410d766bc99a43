"use strict";
// Values under the pointer, and lines that are hidden by their legend. Text only ever becomes
// text: names in the data are not trusted.
const MOST = 16; // lines whose values are shown at once
const charts = JSON.parse(document.getElementById("charts").textContent);

function made(tag, text, name) {
  const element = document.createElement(tag);
  element.textContent = text;
  if (name) element.className = name;
  return element;
}

function nearest(places, wanted) {
  let low = 0, high = places.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (places[middle] < wanted) low = middle + 1; else high = middle;
  }
  return low > 0 && wanted - places[low - 1] < places[low] - wanted ? low - 1 : low;
}

function written(value) {
  return typeof value === "number" ? Number(value.toPrecision(5)).toString() : value;
}

function hover(panel, chart, axis) {
  const svg = panel.querySelector(":scope > svg"), cursor = svg.querySelector(".cursor");
  const [left, right] = chart.frame, [low, high] = chart.x;
  const tip = panel.appendChild(made("div", "", "tip hidden"));

  function leave() {
    tip.classList.add("hidden");
    cursor.style.visibility = "hidden";
  }

  function move(event) {
    const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
    const pointed = (event.clientX - box.left) * scale;
    const wanted = low + (pointed - left) / (right - left) * (high - low);
    const shown = chart.lines.filter(
      (line) => line.x.length && !svg.querySelector(`g[data-key="${line.key}"].hidden`));
    if (pointed < left - 4 || pointed > right + 4 || !shown.length) return leave();
    const found = shown.map((line) => [line, nearest(line.x, wanted)]);
    const places = found.map(([line, at]) => line.x[at]);
    const at = places.reduce((a, b) => Math.abs(b - wanted) < Math.abs(a - wanted) ? b : a);
    const x = left + (at - low) / (high - low) * (right - left);
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.style.visibility = "visible";
    const list = document.createElement("ul");
    for (const [line, index] of found.slice(0, MOST)) {
      const row = made("li", "", `c${line.color}`), elsewhere = line.x[index] !== at;
      row.append(made("span", line.label + (elsewhere ? ` (${written(line.x[index])})` : "")),
        made("b", written(line.y[index])));
      list.append(row);
    }
    if (found.length > MOST) list.append(made("li", `and ${found.length - MOST} more`));
    tip.replaceChildren(made("p", `${axis} ${Number(at.toPrecision(9))}`), list);
    tip.classList.remove("hidden");
    const frame = panel.getBoundingClientRect(), inner = frame.width;
    const across = box.left - frame.left + x / scale;
    const beside = across + 14 + tip.offsetWidth < inner ? across + 14 : across - 14 - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(beside, inner - tip.offsetWidth))}px`;
    tip.style.top = `${event.clientY - frame.top + 12}px`;
  }

  svg.addEventListener("pointermove", move);
  svg.addEventListener("pointerdown", move);
  svg.addEventListener("pointerleave", leave);
}

function hide(button, scope) {
  button.addEventListener("click", () => {
    const visible = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", visible);
    for (const line of scope.querySelectorAll(`g[data-key="${button.dataset.key}"]`))
      line.classList.toggle("hidden", !visible);
  });
}

for (const figure of document.querySelectorAll(".chart")) {
  const chart = charts[figure.dataset.chart];
  figure.querySelectorAll(".panel").forEach((panel, index) => {
    hover(panel, chart.panels[index], chart.x);
    panel.querySelectorAll("button").forEach((button) => hide(button, panel));
  });
  figure.querySelectorAll(":scope > .legend button").forEach((button) => hide(button, figure));
}
document.documentElement.dataset.ready = "yes";
