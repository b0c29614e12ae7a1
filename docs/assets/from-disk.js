/* Browsers start no web worker for a page that is read from the disk (file:), and the site's search is one.
   There a hidden frame runs the worker's script instead, with the messages of both sides handed over. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.frame = frame
      this.inner = frame.contentWindow
      const inner = this.inner
      inner.document.write("<!doctype html><body></body>")
      inner.document.close()
      inner.postMessage = (data) => {
        const event = new MessageEvent("message", { data })
        this.dispatchEvent(event)
        if (this.onmessage) this.onmessage(event)
      }
      inner.importScripts = (...scripts) =>
        scripts.reduce((before, script) => before.then(() => this.load(script)), Promise.resolve())
      this.ready = this.load(url)
    }

    load(url) {
      return new Promise((done, failed) => {
        const script = this.inner.document.createElement("script")
        script.src = url
        script.onload = done
        script.onerror = failed
        this.inner.document.body.append(script)
      })
    }

    postMessage(data) {
      this.ready.then(() => {
        const event = new this.inner.MessageEvent("message", { data: structuredClone(data) })
        this.inner.dispatchEvent(event)
      })
    }

    terminate() {
      this.frame.remove()
    }
  }
}
