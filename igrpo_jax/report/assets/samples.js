"use strict";
// The samples of the page: columns at once, texts in chunks that are opened as needed.
async function inflated(id) {
  const text = document.getElementById(id).textContent;
  const bytes = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

const pause = () => new Promise((done) => setTimeout(done));

class Samples {
  constructor(index) {
    this.index = index;
    this.chunks = index.starts.length;
    this.names = Object.keys(index.filters);
    this.open = new Map();
    this.hays = [];
    this.orders = new Map();
  }

  static async read() {
    return new Samples(await inflated("index"));
  }

  chunkOf(sample) {
    let low = 0, high = this.chunks - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.index.starts[middle] <= sample) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  holds(sample) {
    return this.names.filter((_, bit) => this.index.flags[sample] & (1 << bit));
  }

  // One sample whole. The last few chunks stay open.
  async record(sample) {
    const chunk = this.chunkOf(sample);
    if (!this.open.has(chunk)) this.open.set(chunk, inflated(`chunk-${chunk}`));
    if (this.open.size > 4) this.open.delete(this.open.keys().next().value);
    const records = await (this.open.get(chunk) ?? inflated(`chunk-${chunk}`));
    return records[sample - this.index.starts[chunk]];
  }

  // All words of a chunk in one string, in lower case, and where each sample begins in it.
  async hay(chunk) {
    if (!this.hays[chunk]) {
      const records = await inflated(`chunk-${chunk}`);
      let length = 0;
      const starts = [], texts = [];
      for (const record of records) {
        const parts = [record.question, record.gold ?? ""];
        for (const stage of record.stages) for (const one of stage.completions) parts.push(one.text, one.parsed ?? "", one.reason ?? "");
        const text = parts.join("\n").toLowerCase();
        starts.push(length);
        texts.push(text);
        length += text.length + 1;
      }
      this.hays[chunk] = { text: texts.join("\0"), starts };
    }
    return this.hays[chunk];
  }

  // 1 for each sample that holds a query; null if another one is wanted meanwhile.
  async matching(query, wanted) {
    const hits = new Uint8Array(this.index.count);
    let last = performance.now();
    for (let chunk = 0; chunk < this.chunks; chunk++) {
      const { text, starts } = this.hays[chunk] ?? (await this.hay(chunk));
      for (let at = text.indexOf(query), k = 0; at >= 0; at = text.indexOf(query, starts[k + 1] ?? text.length + 1)) {
        while (k + 1 < starts.length && starts[k + 1] <= at) k++;
        hits[this.index.starts[chunk] + k] = 1;
        if (k + 1 >= starts.length) break;
      }
      if (performance.now() - last > 40) {
        await pause();
        last = performance.now();
        if (!wanted()) return null;
      }
    }
    return hits;
  }

  // Makes searching quick, a chunk at a time, while nothing else is to be done.
  async prepare() {
    for (let chunk = 0; chunk < this.chunks; chunk++) {
      await this.hay(chunk);
      await pause();
    }
  }

  // All samples in an order; each is sorted once.
  ordered(name) {
    if (!this.orders.has(name)) {
      const { step, reward, count } = this.index, value = (k) => reward[k] ?? 0;
      const by = {
        first: (a, b) => step[a] - step[b] || a - b, last: (a, b) => step[b] - step[a] || a - b,
        low: (a, b) => value(a) - value(b) || a - b, high: (a, b) => value(b) - value(a) || a - b,
      };
      this.orders.set(name, Uint32Array.from({ length: count }, (_, k) => k).sort(by[name]));
    }
    return this.orders.get(name);
  }
}
