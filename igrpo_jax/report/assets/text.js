"use strict";
// Texts of models and data become text nodes, never markup; what is invisible is written out.
const ODD = /[^\P{C}\n\t]|[\u2028\u2029]/gu;

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

function escaped(character) {
  const number = character.codePointAt(0);
  return number < 0x100 ? `\\x${number.toString(16).padStart(2, "0")}`
    : number < 0x10000 ? `\\u${number.toString(16).padStart(4, "0")}` : `\\U${number.toString(16).padStart(8, "0")}`;
}

// As igrpo_jax.edges.printable, as one string.
function printable(text) {
  return String(text).replace(ODD, escaped);
}

// Nodes of a text in which matches of a query, in lower case, are marked.
function nodes(text, query = "") {
  const made = [];
  const visible = (part, wrap) => {
    let last = 0;
    for (const match of part.matchAll(ODD)) {
      if (match.index > last) made.push(wrap(part.slice(last, match.index)));
      made.push(element("span", { className: "odd" }, escaped(match[0])));
      last = match.index + match[0].length;
    }
    if (last < part.length) made.push(wrap(part.slice(last)));
  };
  const plain = (part) => document.createTextNode(part), marked = (part) => element("mark", {}, part);
  const lower = text.toLowerCase();
  let from = 0;
  if (query && lower.length === text.length) {
    for (let at = lower.indexOf(query); at >= 0; at = lower.indexOf(query, from)) {
      visible(text.slice(from, at), plain);
      visible(text.slice(at, at + query.length), marked);
      from = at + query.length;
    }
  }
  visible(text.slice(from), plain);
  return made;
}

// The difference of two texts by word: [kind, text] with kind "same", "gone" or "new". Lines are aligned first where
// what is between the same beginning and the same end is too long to align all words.
const MOST = 9e6;

function difference(before, after) {
  return joined(aligned(words(before), words(after), byLines));
}

const words = (text) => text.match(/\s*\S+|\s+$/g) ?? [];
const lines = (text) => text.match(/[^\n]*\n|[^\n]+$/g) ?? [];
const replaced = (a, b) => [...a.map((part) => ["gone", part]), ...b.map((part) => ["new", part])];

function byLines(a, b) {
  const rough = joined(aligned(lines(a.join("")), lines(b.join("")), replaced)), made = [];
  for (let k = 0; k < rough.length; k++) {
    const [kind, text] = rough[k], next = rough[k + 1];
    if (kind === "gone" && next?.[0] === "new") made.push(...aligned(words(text), words(rough[++k][1]), replaced));
    else made.push([kind, text]);
  }
  return made;
}

// The longest common subsequence of two lists of texts; `otherwise` has to do where that takes too long.
function aligned(a, b, otherwise) {
  const same = (x, y) => x.trim() === y.trim();
  let head = 0, tail = 0;
  while (head < a.length && head < b.length && same(a[head], b[head])) head++;
  while (tail < a.length - head && tail < b.length - head && same(a[a.length - 1 - tail], b[b.length - 1 - tail])) tail++;
  const x = a.slice(head, a.length - tail), y = b.slice(head, b.length - tail), keep = (part) => ["same", part];
  const middle = x.length * y.length > MOST ? otherwise(x, y) : common(x, y);
  return [...b.slice(0, head).map(keep), ...middle, ...b.slice(b.length - tail).map(keep)];
}

function common(a, b) {
  const x = a.map((part) => part.trim()), y = b.map((part) => part.trim());
  const width = b.length + 1, longest = new Uint16Array((a.length + 1) * width), made = [];
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      longest[i * width + j] = x[i] === y[j] ? longest[(i + 1) * width + j + 1] + 1
        : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
    }
  }
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && x[i] === y[j]) { made.push(["same", b[j]]); i++; j++; }
    else if (j >= b.length || (i < a.length && longest[(i + 1) * width + j] >= longest[i * width + j + 1])) made.push(["gone", a[i++]]);
    else made.push(["new", b[j++]]);
  }
  return made;
}

function joined(parts) {
  const made = [];
  for (const [kind, text] of parts) {
    if (made.length && made[made.length - 1][0] === kind) made[made.length - 1][1] += text;
    else made.push([kind, text]);
  }
  return made;
}
