"use strict";
// One sample as nodes: the question, all stages, and what each completion was worth and why.
const REWARD = (value) => (typeof value === "number" ? String(Math.round(value * 1000) / 1000) : "");
const TONES = {
  fixed: "good", "all right": "good", broken: "bad", "all wrong": "bad", copied: "warn", "no spread": "", timeout: "bad",
  error: "bad", "cut off": "warn",
};

function tag(words, tone = "", title = "") {
  return element("span", { className: `tag ${tone}`, title }, printable(words));
}

function draftOf(record, stage) {
  if (!stage.draft) return null;
  if (!Array.isArray(stage.draft)) return stage.draft;
  return record.stages.find((other) => other.stage === stage.draft[0])?.completions[stage.draft[1]] ?? null;
}

function headings(record) {
  let round = 0;
  const stages = record.stages, refined = stages.filter((stage) => stage.draft).length;
  return stages.map((stage, s) => {
    if (stage.draft) return ++round && refined > 1 ? `Refinements, round ${round}` : "Refinements";
    const later = stages.slice(s + 1);
    if (later.some((other) => other.draft) || (later.length && record.mode !== "bare")) return "Drafts";
    return record.mode === "bare" && stages.length > 1 ? `Completions, portion ${s + 1}` : "Completions";
  });
}

function completionCard(one, k, { draft, chosen, query, diff }) {
  const rewards = Object.entries(one.rewards ?? {});
  const about = element("div", { className: "about" }, element("b", {}, `${k + 1}`));
  if ("right" in one) about.append(tag(one.right ? "\u2713 right" : "\u2717 wrong", one.right ? "good" : "bad"));
  about.append(element("span", {}, "reward ", element("b", {}, REWARD(one.reward))));
  if (rewards.length > 1) about.append(element("span", {}, `(${rewards.map(([n, v]) => `${printable(n)} ${v === null ? "\u2013" : REWARD(v)}`).join(", ")})`));
  if (typeof one.advantage === "number") about.append(element("span", {}, `advantage ${one.advantage > 0 ? "+" : ""}${one.advantage.toFixed(2)}`));
  if (one.reason) about.append(tag(one.reason, /^(timeout|error|memory)/.test(one.reason) ? "bad" : "", "why it was graded so"));
  if (one.parsed !== null && one.parsed !== undefined) about.append(element("span", {}, "read as ", element("b", { className: "word" }, ...nodes(String(one.parsed), query))));
  if (typeof one.tokens === "number") about.append(element("span", {}, `${one.tokens} tokens`));
  if (one.ended === false) about.append(tag("cut off", "warn", "reached the limit of tokens"));
  if (chosen) about.append(tag("chosen draft", "accent", "stood in the next stage's prompt"));
  if (draft && typeof draft.text === "string") {
    if (typeof draft.right === "boolean" && one.right !== draft.right) about.append(tag(one.right ? "fixed" : "broken", one.right ? "good" : "bad"));
    if (draft.text.trim() === one.text.trim()) about.append(tag("copied", "warn"));
  }
  const text = element("div", { className: "text", dir: "auto" });
  if (draft && diff && typeof draft.text === "string") {
    const kinds = { same: "span", gone: "del", new: "ins" };
    for (const [kind, part] of difference(draft.text, one.text)) text.append(element(kinds[kind], {}, ...nodes(part, query)));
  } else text.append(...nodes(one.text, query));
  return element("div", { className: chosen ? "card chosen" : "card" }, about, text);
}

function detailOf(record, { step, run, source, holds, query, diff }) {
  const names = headings(record);
  const kept = record.stages.map((stage) => stage.draft).filter(Array.isArray);
  const made = [
    element("p", { className: "bar" }, `step ${step}`, ` \u00b7 ${printable(run)} \u00b7 ${printable(source)} \u00b7 problem ${printable(record.problem ?? "")}`,
      element("span", { className: "grow" }), ...holds.map((name) => tag(name, TONES[name]))),
    element("div", { className: "question text", dir: "auto" }, ...nodes(record.question, query)),
  ];
  if (record.gold !== null && record.gold !== undefined) made.push(element("div", { className: "gold" }, "gold answer ", element("b", { className: "word" }, ...nodes(String(record.gold), query))));
  record.stages.forEach((stage, s) => {
    const draft = draftOf(record, stage), part = element("div", { className: "stage" }, element("h3", {}, names[s]));
    if (draft && !Array.isArray(stage.draft)) {
      part.append(element("p", { className: "gold" }, `of a draft kept from step ${draft.step ?? "?"}, reward ${REWARD(draft.reward)}`));
      part.append(element("div", { className: "card chosen" }, element("div", { className: "text", dir: "auto" }, ...nodes(String(draft.text ?? ""), query))));
    }
    stage.completions.forEach((one, k) => {
      const chosen = kept.some(([number, index]) => number === stage.stage && index === k);
      part.append(completionCard(one, k, { draft, chosen, query, diff }));
    });
    made.push(part);
  });
  return made;
}
