"use strict";
(() => {
  const graph = JSON.parse(document.getElementById("graph").textContent);
  const picture = document.getElementById("picture");
  const details = document.getElementById("details");
  const tip = document.getElementById("tip");
  const by = (id) => document.getElementById(id);
  const cards = [...picture.querySelectorAll(".card")].map((element) => ({ element, node: Number(element.dataset.node) }));
  const edges = [...picture.querySelectorAll(".edge")].map((element) => ({ element, number: Number(element.dataset.edge) }));
  for (const title of picture.querySelectorAll("title")) title.remove();
  const around = graph.nodes.map(() => []);
  graph.edges.forEach((edge, number) => { around[edge.source].push(number); if (edge.target !== edge.source) around[edge.target].push(number); });
  const full = (node) => (node.namespace ? node.namespace + "/" : "") + node.name;
  const make = (tag, text, style) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (style) element.className = style;
    return element;
  };
  const count = (number, one, several) => number + " " + (number === 1 ? one : several || one + "s");

  // Where the picture is: the part of it that is shown.
  const whole = picture.getAttribute("viewBox").split(" ").map(Number);
  const view = { x: whole[0], y: whole[1], w: whole[2], h: whole[3] };
  const show = () => picture.setAttribute("viewBox", [view.x, view.y, view.w, view.h].join(" "));
  const fit = () => {
    const box = picture.getBoundingClientRect();
    // Nothing is shown larger than it was drawn for: two cards filling a screen are no easier to read.
    const scale = Math.min(1.25, box.width / whole[2], box.height / whole[3]) || 1;
    view.w = box.width / scale; view.h = box.height / scale;
    view.x = whole[0] + (whole[2] - view.w) / 2; view.y = whole[1] + (whole[3] - view.h) / 2;
    show();
  };
  const zoom = (factor, x, y) => {
    const box = picture.getBoundingClientRect();
    const shareX = x === undefined ? 0.5 : (x - box.left) / box.width;
    const shareY = y === undefined ? 0.5 : (y - box.top) / box.height;
    const w = Math.min(Math.max(view.w * factor, 200), whole[2] * 6 + 2000);
    const h = (view.h * w) / view.w;
    view.x += (view.w - w) * shareX; view.y += (view.h - h) * shareY;
    view.w = w; view.h = h; show();
  };
  picture.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(Math.max(-120, Math.min(120, event.deltaY)) * 0.002), event.clientX, event.clientY); }, { passive: false });
  let held = null;
  let moved = false;
  picture.addEventListener("pointerdown", (event) => { if (event.button === 0) { held = [event.clientX, event.clientY]; moved = false; } });
  addEventListener("pointermove", (event) => {
    if (!held) return;
    const [x, y] = held;
    if (!moved && Math.hypot(event.clientX - x, event.clientY - y) < 4) return;
    moved = true; tip.hidden = true; picture.classList.add("moving");
    const box = picture.getBoundingClientRect();
    view.x -= ((event.clientX - x) * view.w) / box.width; view.y -= ((event.clientY - y) * view.h) / box.height;
    held = [event.clientX, event.clientY]; show();
  });
  addEventListener("pointerup", () => { held = null; picture.classList.remove("moving"); });

  // What is shown.
  const filters = { text: "", namespace: "", port: "", states: { seen: true, denied: true, audit: true, unseen: true } };
  let chosen = null;
  const haystack = graph.nodes.map((node) => [full(node), node.kind, ...node.pods, ...node.addresses, ...Object.entries(node.labels).map(([key, value]) => key + "=" + value)].join("\n").toLowerCase());
  const edgeText = graph.edges.map((edge) => edge.ports.flatMap((port) => [port.text, ...port.policies]).join("\n").toLowerCase());
  const admitted = (number) => {
    const edge = graph.edges[number];
    const lanes = edge.ports.filter((lane) => (!filters.port || lane.text === filters.port) && lane.state && filters.states[lane.state]);
    if (!lanes.length) return false;
    if (!filters.states[edge.state] && !lanes.some((lane) => lane.state !== "unseen")) return false;
    const ends = [graph.nodes[edge.source], graph.nodes[edge.target]];
    return !filters.namespace || ends.some((node) => node.namespace === filters.namespace);
  };
  const apply = () => {
    const text = filters.text.trim().toLowerCase();
    const found = new Set();
    const near = new Set();
    if (text) {
      haystack.forEach((words, node) => { if (words.includes(text)) found.add(node); });
      edgeText.forEach((words, number) => { if (words.includes(text) && admitted(number)) near.add(number); });
    }
    const nodes = new Set(found);
    const focused = chosen !== null ? new Set([chosen]) : found;
    if (chosen !== null) { near.clear(); nodes.clear(); nodes.add(chosen); }
    for (const node of focused) for (const number of around[node]) near.add(number);
    const used = new Set();
    for (const { element, number } of edges) {
      const on = admitted(number);
      element.classList.toggle("off", !on);
      element.classList.toggle("near", on && near.has(number));
      if (on) { used.add(graph.edges[number].source); used.add(graph.edges[number].target); }
      if (on && near.has(number)) { nodes.add(graph.edges[number].source); nodes.add(graph.edges[number].target); }
    }
    const narrowed = filters.namespace || filters.port;
    for (const { element, node } of cards) {
      element.classList.toggle("near", nodes.has(node));
      element.classList.toggle("found", chosen === null && found.has(node));
      element.classList.toggle("chosen", node === chosen);
      element.classList.toggle("off", Boolean(narrowed) && !used.has(node) && graph.nodes[node].namespace !== filters.namespace);
    }
    picture.classList.toggle("faded", chosen !== null || Boolean(text));
  };

  // What is said of it.
  const laneLine = (lane) => {
    const line = make("div");
    line.append(make("em", lane.text));
    const said = [];
    if (lane.denied) said.push(lane.denied + " denied");
    if (lane.forwarded) said.push(lane.forwarded + " seen");
    if (!lane.denied && !lane.forwarded && !lane.audited) said.push("never seen");
    if (lane.audited) said.push(lane.audited + " would be denied");
    else if (lane.would_deny) said.push("would be denied");
    line.append(" " + said.join(", "));
    if (lane.partial) line.append(" · only some pods");
    if (lane.denied || lane.forwarded) line.append(" · last " + lane.last);
    if (lane.policies.length) line.append(make("br"), "by " + lane.policies.join(", "));
    else if (lane.allowed) line.append(make("br"), "no policy isolates either end");
    else if (lane.because) line.append(make("br"), lane.because);
    if (lane.outdated) line.append(make("br"), make("span", "the policies given say otherwise now", "warn"));
    return line;
  };
  const list = (title, numbers, other) => {
    if (!numbers.length) return [];
    const items = make("ul");
    const rank = { denied: 0, audit: 1, seen: 2, unseen: 3 };
    numbers.sort((a, b) => rank[graph.edges[a].state] - rank[graph.edges[b].state] || other(a) - other(b));
    for (const number of numbers) {
      const edge = graph.edges[number];
      const item = make("li", undefined, edge.state);
      const go = make("button", full(graph.nodes[other(number)]));
      go.type = "button";
      go.addEventListener("click", () => choose(other(number)));
      item.append(go, ...edge.ports.filter((lane) => lane.state).map(laneLine));
      items.append(item);
    }
    return [make("h3", title), items];
  };
  const describe = (place) => {
    const node = graph.nodes[place];
    const close = make("button", "\u00d7", "close");
    close.type = "button"; close.title = "Back (Esc)"; close.setAttribute("aria-label", "Close");
    close.addEventListener("click", () => choose(null));
    const said = [make("p", node.pods.length ? count(node.pods.length, "pod") : node.kind)];
    if (node.open_ingress) said.push(make("p", "No policy isolates it for ingress: everybody reaches it.", "warn"));
    if (node.open_egress) said.push(make("p", "No policy isolates it for egress: it reaches everybody who lets it.", "warn"));
    const tags = make("p");
    for (const [key, value] of Object.entries(node.labels)) tags.append(make("span", key + "=" + value, "tag"));
    for (const address of node.addresses) tags.append(make("span", address, "tag"));
    if (tags.childNodes.length) said.push(tags);
    if (node.pods.length > 1) {
      const more = make("details");
      more.append(make("summary", count(node.pods.length, "pod")));
      for (const pod of node.pods) more.append(make("div", pod));
      said.push(more);
    }
    const into = around[place].filter((number) => graph.edges[number].target === place && admitted(number));
    const out = around[place].filter((number) => graph.edges[number].source === place && admitted(number));
    details.replaceChildren(close, make("h2", full(node)), ...said,
      ...list("In: " + count(into.length, "peer"), into, (number) => graph.edges[number].source),
      ...list("Out: " + count(out.length, "peer"), out, (number) => graph.edges[number].target));
    if (!into.length && !out.length) details.append(make("p", "Nothing goes to it or from it here."));
  };
  const choose = (place) => {
    const before = chosen;
    chosen = place;
    details.hidden = place === null;
    if (place !== null) { describe(place); details.scrollTop = 0; }
    apply();
    if (place === null && before !== null) cards.find(({ node }) => node === before)?.element.focus();
  };
  const hover = (event, title, lines) => {
    if (held && moved) return;
    tip.replaceChildren(make("strong", title), ...lines);
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(8, Math.min(event.clientX + 14, innerWidth - box.width - 8)) + "px";
    tip.style.top = Math.max(8, event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 12 : event.clientY + 18) + "px";
  };
  for (const { element, number } of edges) {
    const edge = graph.edges[number];
    element.addEventListener("pointermove", (event) => hover(event, full(graph.nodes[edge.source]) + " \u2192 " + full(graph.nodes[edge.target]) + ": " + graph.legend[edge.state], edge.ports.filter((lane) => lane.state).slice(0, 8).map(laneLine)));
    element.addEventListener("pointerleave", () => { tip.hidden = true; });
  }
  for (const { element, node } of cards) {
    element.addEventListener("click", () => { if (!moved) choose(chosen === node ? null : node); });
    element.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(chosen === node ? null : node); } });
    element.addEventListener("pointermove", (event) => {
      const lanes = around[node].filter(admitted);
      const text = ["denied", "audit", "seen", "unseen"].map((state) => [state, lanes.filter((number) => graph.edges[number].state === state).length]).filter(([, much]) => much).map(([state, much]) => much + " " + graph.legend[state]).join(", ");
      hover(event, full(graph.nodes[node]), [make("div", text || "nothing to it or from it")]);
    });
    element.addEventListener("pointerleave", () => { tip.hidden = true; });
  }
  by("search").addEventListener("input", (event) => { filters.text = event.target.value; chosen = null; details.hidden = true; apply(); });
  by("search").addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    const first = cards.find(({ element }) => element.classList.contains("found"));
    if (first) { choose(first.node); first.element.focus(); }
  });
  for (const name of ["namespace", "port"]) by(name).addEventListener("change", (event) => { filters[name] = event.target.value; apply(); if (chosen !== null) describe(chosen); });
  for (const state of ["seen", "denied", "audit", "unseen"]) by("show-" + state).addEventListener("change", (event) => { filters.states[state] = event.target.checked; apply(); if (chosen !== null) describe(chosen); });
  by("filters").addEventListener("submit", (event) => event.preventDefault());
  by("fit").addEventListener("click", fit);
  by("theme").addEventListener("click", () => {
    const dark = document.body.classList.contains("dark") || (!document.body.classList.contains("light") && matchMedia("(prefers-color-scheme: dark)").matches);
    document.body.classList.toggle("dark", !dark); document.body.classList.toggle("light", dark);
  });
  addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "Escape") {
      if (by("search").value) { by("search").value = filters.text = ""; }
      choose(null);
      if (typing) event.target.blur();
    } else if (typing || event.ctrlKey || event.metaKey || event.altKey) { return; }
    else if (event.key === "/") { event.preventDefault(); by("search").focus(); }
    else if (event.key === "+" || event.key === "=") zoom(0.8);
    else if (event.key === "-") zoom(1.25);
    else if (event.key === "0") fit();
    else if (event.key.startsWith("Arrow")) {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (step) { event.preventDefault(); view.x += step[0] * view.w * 0.1; view.y += step[1] * view.h * 0.1; show(); }
    }
  });
  let before = null;
  addEventListener("beforeprint", () => { before = { ...view }; picture.setAttribute("viewBox", whole.join(" ")); });
  addEventListener("afterprint", () => { if (before) Object.assign(view, before); show(); });
  addEventListener("resize", fit);
  fit(); apply();
  // A link may name what to look at: page.html#shop/cart.
  let named = location.hash.slice(1);
  try { named = decodeURIComponent(named); } catch { named = ""; }
  const place = named ? graph.nodes.findIndex((node) => full(node) === named) : -1;
  if (place >= 0) choose(place);
})();
