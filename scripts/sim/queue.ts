/** What happens next: a binary heap by time, then by the order in which things were scheduled, so that a seed replays to the byte. */
interface Entry {
  at: number
  sequence: number
  run: () => void
}

export class EventQueue {
  now = 0
  readonly #heap: Entry[] = []
  #sequence = 0

  get size (): number { return this.#heap.length }

  at (time: number, run: () => void): void {
    const heap = this.#heap
    const entry = { at: time < this.now ? this.now : time, sequence: this.#sequence++, run }
    let i = heap.length
    heap.push(entry)
    while (i > 0) {
      const parent = (i - 1) >> 1
      const above = heap[parent] as Entry
      if (!before(entry, above)) break
      heap[i] = above
      i = parent
    }
    heap[i] = entry
  }

  after (ms: number, run: () => void): void { this.at(this.now + ms, run) }

  /** Runs what is next, unless that lies beyond `until`. */
  step (until: number): boolean {
    const heap = this.#heap
    const first = heap[0]
    if (first === undefined || first.at > until) return false
    const last = heap.pop() as Entry
    if (heap.length > 0) this.#sink(last)
    this.now = first.at
    first.run()
    return true
  }

  #sink (entry: Entry): void {
    const heap = this.#heap
    const length = heap.length
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= length) break
      if (child + 1 < length && before(heap[child + 1] as Entry, heap[child] as Entry)) child++
      const below = heap[child] as Entry
      if (!before(below, entry)) break
      heap[i] = below
      i = child
    }
    heap[i] = entry
  }
}

function before (a: Entry, b: Entry): boolean {
  return a.at < b.at || (a.at === b.at && a.sequence < b.sequence)
}
