/** Server-sent events: the data of each event out of text that arrives in pieces. Comments and other fields are skipped. */

export class Lines {
  constructor() {
    this.rest = "";
    /** @type {string[]} */
    this.data = [];
  }

  /**
   * More text; the data of the events that are now complete.
   * @param {string} text
   * @returns {string[]}
   */
  add(text) {
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop() ?? "";
    const found = [];
    for (const line of lines) {
      if (line === "" && this.data.length) {
        found.push(this.data.join("\n"));
        this.data = [];
      } else if (line.startsWith("data:")) {
        this.data.push(line.slice(line[5] === " " ? 6 : 5));
      }
    }
    return found;
  }
}
