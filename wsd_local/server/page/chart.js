/**
 * The chart of one reply: the base's probability of each token, the confidence of the window that ends there, and the
 * threshold. The band is the draft's; the line at its end is where the base took over.
 */

import uPlot from "./vendor/uPlot.esm.js";

/** @typedef {import("./scores.js").Scores} Scores */

const HEIGHT = 190;

/** Places that are shown at least, and after the draft's last token. */
const LEAST = 12;
const MORE = 3;

/** @param {string} name @returns {string} a colour of the style sheet */
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

export class Chart {
  /**
   * @param {HTMLElement} box
   * @param {Scores} scores
   * @param {() => number} threshold that of the next reply
   * @param {(token: number | null) => void} pointed a token that the pointer is over
   */
  constructor(box, scores, threshold, pointed) {
    this.box = box;
    this.scores = scores;
    this.threshold = threshold;
    this.pointed = pointed;
    /** @type {any} */
    this.plot = null;
    new ResizeObserver(() => this.resize()).observe(box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.restyle());
  }

  /** Colours have changed. */
  restyle() {
    this.plot?.destroy();
    this.plot = null;
    this.draw();
  }

  resize() {
    const width = this.box.clientWidth;
    if (width > 0 && this.plot !== null && this.plot.width !== width) this.plot.setSize({ width, height: HEIGHT });
    else if (width > 0 && this.plot === null) this.draw();
  }

  /** Draw the scores as they are. */
  draw() {
    if (this.box.clientWidth === 0) return;
    const { tokens, drafted } = this.scores;
    const scored = tokens.findLastIndex((token) => token.prob !== null) + 1;
    const count = Math.max(scored, drafted + MORE, LEAST);
    const places = Array.from({ length: count }, (_, index) => index + 1);
    const at = (/** @type {number} */ index) => tokens[index];
    const data = [
      places,
      places.map((_, index) => at(index)?.prob ?? null),
      places.map((_, index) => at(index)?.window ?? null),
    ];
    if (this.plot === null) this.plot = new uPlot(this.options(), data, this.box);
    else this.plot.setData(data);
  }

  /** @returns {any} */
  options() {
    const axis = {
      stroke: colour("faint"),
      grid: { stroke: colour("grid"), width: 1 },
      ticks: { show: false },
      font: "11px system-ui",
      labelFont: "11px system-ui",
    };
    return {
      width: this.box.clientWidth,
      height: HEIGHT,
      padding: [10, 8, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
      scales: { x: { time: false }, y: { range: [0, 1.02] } },
      axes: [
        { ...axis, size: 26, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] },
        {
          ...axis,
          size: 34,
          splits: () => [0, 0.25, 0.5, 0.75, 1],
          values: (/** @type {any} */ _, /** @type {number[]} */ all) => all.map((one) => String(one)),
        },
      ],
      series: [
        {},
        {
          label: "probability",
          stroke: colour("prob"),
          width: 1,
          points: { show: true, size: 5, fill: colour("prob") },
          spanGaps: false,
        },
        {
          label: "confidence",
          stroke: colour("window"),
          width: 2.5,
          points: { show: true, size: 6, fill: colour("window") },
        },
      ],
      hooks: {
        drawClear: [(/** @type {any} */ plot) => this.band(plot)],
        draw: [(/** @type {any} */ plot) => this.lines(plot)],
        setCursor: [(/** @type {any} */ plot) => this.pointed(plot.cursor.idx ?? null)],
      },
    };
  }

  /** The part that the draft wrote. @param {any} plot */
  band(plot) {
    const kept = this.scores.switch?.kept_tokens ?? this.scores.drafted;
    if (!kept) return;
    const { ctx, bbox } = plot;
    const end = Math.min(plot.valToPos(kept + 0.5, "x", true), bbox.left + bbox.width);
    ctx.save();
    ctx.fillStyle = colour("draft-wash");
    ctx.fillRect(bbox.left, bbox.top, end - bbox.left, bbox.height);
    ctx.restore();
  }

  /** The thresholds, and where the base took over. @param {any} plot */
  lines(plot) {
    const { ctx, bbox } = plot;
    const scale = devicePixelRatio || 1;
    ctx.save();
    ctx.lineWidth = 1.5 * scale;
    ctx.font = `${11 * scale}px system-ui`;
    const level = (/** @type {number} */ value, /** @type {string} */ stroke, /** @type {number[]} */ dash) => {
      if (value > 1.02) return;
      const y = plot.valToPos(value, "y", true);
      ctx.strokeStyle = stroke;
      ctx.setLineDash(dash.map((one) => one * scale));
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
    };
    level(this.scores.threshold, colour("threshold"), [6, 4]);
    if (this.threshold() !== this.scores.threshold) level(this.threshold(), colour("faint"), [2, 3]);
    const kept = this.scores.switch?.index;
    if (typeof kept === "number") {
      const x = plot.valToPos(kept + 1.5, "x", true);
      ctx.setLineDash([]);
      ctx.strokeStyle = colour("base");
      ctx.lineWidth = 2 * scale;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }
}
