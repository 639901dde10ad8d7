// Browsers start no worker from a file, so that on a page from disk the search runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.documentElement.append(frame)
      const inside = frame.contentWindow
      const waiting = []
      let ready = false
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      const run = source => new Promise((done, failed) => {
        const script = frame.contentDocument.createElement("script")
        script.src = source
        script.onload = done
        script.onerror = failed
        frame.contentDocument.documentElement.append(script)
      })
      inside.importScripts = (...sources) => sources.reduce((before, source) => before.then(() => run(source)), Promise.resolve())
      const give = data => inside.dispatchEvent(new MessageEvent("message", { data }))
      this.postMessage = data => ready ? give(data) : waiting.push(data)
      run(url).then(() => { ready = true; waiting.forEach(give) })
    }
    addEventListener(kind, listener) {
      super.addEventListener(kind, event => { listener(event) })
    }
    set onmessage(listener) { this.addEventListener("message", listener) }
    terminate() {}
  }
}
