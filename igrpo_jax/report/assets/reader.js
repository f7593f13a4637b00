"use strict";
// The list of samples, its filters, and the keyboard. Only rows in sight exist.
(async () => {
  const at = (id) => document.getElementById(id), list = at("list");
  if (!list) return;
  const HEIGHT = 58, reader = document.querySelector(".reader"), samples = await Samples.read().catch((error) => {
    at("found").textContent = `samples cannot be shown: ${error.message}; a browser of 2023 or later can`;
  });
  if (!samples) return;
  const { index } = samples;
  const state = { on: new Set(), query: "", diff: true, shown: [], place: -1, turn: 0, asked: 0 };

  index.runs.forEach((name, k) => at("run").append(element("option", { value: k }, name)));
  index.sources.forEach((name, k) => at("source").append(element("option", { value: k }, name)));
  at("run").hidden = index.runs.length < 2;
  at("source").hidden = index.sources.length < 2;
  const counts = samples.names.map((_, bit) => index.flags.reduce((sum, flags) => sum + ((flags >> bit) & 1), 0));
  samples.names.forEach((name, bit) => {
    const chip = element("button", { type: "button", title: `${index.filters[name]} (${bit + 1})`, disabled: !counts[bit] }, name, " ", element("small", {}, counts[bit].toLocaleString("en")));
    chip.dataset.filter = name;
    chip.setAttribute("aria-pressed", "false");
    chip.addEventListener("click", () => toggle(bit));
    at("filters").append(chip);
  });

  function toggle(bit) {
    const chip = at("filters").children[bit];
    if (!chip || chip.disabled) return;
    if (!state.on.delete(bit)) state.on.add(bit);
    chip.setAttribute("aria-pressed", String(state.on.has(bit)));
    refresh();
  }

  async function refresh() {
    const turn = ++state.turn, began = performance.now(), mask = [...state.on].reduce((sum, bit) => sum | (1 << bit), 0);
    const run = Number(at("run").value), source = Number(at("source").value), query = state.query;
    let hits = null;
    if (query) {
      at("found").textContent = "searching\u2026";
      hits = await samples.matching(query, () => turn === state.turn);
      if (turn !== state.turn) return;
    }
    const found = [];
    for (const k of samples.ordered(at("order").value)) {
      if ((index.flags[k] & mask) !== mask || (run >= 0 && index.run[k] !== run)) continue;
      if ((source >= 0 && index.source[k] !== source) || (hits && !hits[k])) continue;
      found.push(k);
    }
    const kept = state.shown[state.place];
    state.shown = found;
    at("space").style.height = `${state.shown.length * HEIGHT}px`;
    at("found").textContent = `${found.length.toLocaleString("en")} of ${index.count.toLocaleString("en")}`;
    at("found").dataset.seconds = ((performance.now() - began) / 1000).toFixed(4);
    at("found").dataset.turn = turn;
    const place = state.shown.indexOf(kept);
    if (place < 0) list.scrollTop = 0;
    rows();
    select(found.length ? Math.max(place, 0) : -1, { open: false });
  }

  function rows() {
    const first = Math.max(Math.floor(list.scrollTop / HEIGHT) - 5, 0);
    const last = Math.min(first + Math.ceil(list.clientHeight / HEIGHT) + 10, state.shown.length), made = [];
    for (let place = first; place < last; place++) {
      const k = state.shown[place], about = element("div", { className: "about" }, `step ${index.step[k]}`);
      if (index.runs.length > 1) about.append(tag(index.runs[index.run[k]]));
      about.append(...samples.holds(k).slice(0, 3).map((name) => tag(name, TONES[name])), element("b", {}, REWARD(index.reward[k])));
      const row = element("div", { className: "item", id: `item-${place}`, role: "option" }, about, element("div", {}, printable(index.excerpt[k]) || "\u00a0"));
      row.setAttribute("aria-selected", String(place === state.place));
      row.style.top = `${place * HEIGHT}px`;
      row.addEventListener("click", () => select(place, { open: true }));
      made.push(row);
    }
    at("space").replaceChildren(...made);
  }

  async function select(place, { open }) {
    state.place = place;
    const asked = ++state.asked, k = state.shown[place];
    if (place < 0 || k === undefined) {
      at("detail").replaceChildren(element("p", { className: "none" }, "No sample is like that."));
      return;
    }
    reader.classList.toggle("open", open || (reader.classList.contains("open")));
    const top = place * HEIGHT;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + HEIGHT > list.scrollTop + list.clientHeight && list.clientHeight) list.scrollTop = top + HEIGHT - list.clientHeight;
    list.setAttribute("aria-activedescendant", `item-${place}`);
    rows();
    const record = await samples.record(k);
    if (asked !== state.asked) return;
    const button = (words, title, act, off = false) => {
      const made = element("button", { type: "button", title, disabled: off }, words);
      made.addEventListener("click", act);
      return made;
    };
    const back = button("\u2190 list", "back to the list (Esc)", shut), diff = button("difference", "refinements as differences from their draft (d)", switchDiff);
    back.className = "back";
    diff.setAttribute("aria-pressed", String(state.diff));
    const bar = element("div", { className: "bar" }, back, button("\u2191", "previous (k)", () => move(-1), place === 0), button("\u2193", "next (j)", () => move(1), place + 1 >= state.shown.length),
      `${(place + 1).toLocaleString("en")} of ${state.shown.length.toLocaleString("en")}`, element("span", { className: "grow" }), diff);
    const about = { step: index.step[k], run: index.runs[index.run[k]], source: index.sources[index.source[k]], holds: samples.holds(k), query: state.query, diff: state.diff };
    at("detail").replaceChildren(bar, ...detailOf(record, about));
    at("detail").dataset.sample = k;
    at("detail").scrollTop = 0;
  }

  const move = (by) => state.shown.length && select(Math.min(Math.max(state.place + by, 0), state.shown.length - 1), { open: false });
  const shut = () => { reader.classList.remove("open"); rows(); };
  const switchDiff = () => { state.diff = !state.diff; select(state.place, { open: false }); };

  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.ctrlKey || event.metaKey || event.altKey || (typing && event.key !== "Escape")) return;
    const arrows = list.contains(event.target) || at("detail").contains(event.target), page = Math.floor(list.clientHeight / HEIGHT);
    const keys = {
      j: () => move(1), k: () => move(-1), d: switchDiff, "/": () => at("search").focus(),
      Escape: () => { if (typing) event.target.blur(); shut(); },
      ...(arrows && { ArrowDown: () => move(1), ArrowUp: () => move(-1), PageDown: () => move(page), PageUp: () => move(-page), Home: () => move(-Infinity), End: () => move(Infinity), Enter: () => select(state.place, { open: true }) }),
    };
    const act = keys[event.key] ?? (/^[1-9]$/.test(event.key) ? () => toggle(Number(event.key) - 1) : null);
    if (!act) return;
    event.preventDefault();
    act();
  });
  let waiting = 0;
  at("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { state.query = at("search").value.toLowerCase(); refresh(); }, 60);
  });
  for (const id of ["run", "source", "order"]) at(id).addEventListener("change", refresh);
  list.addEventListener("scroll", () => requestAnimationFrame(rows), { passive: true });
  addEventListener("resize", rows);
  await refresh();
  reader.dataset.ready = "true";
  await samples.prepare();
  reader.dataset.searchable = "true";
})();
