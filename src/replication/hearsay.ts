/** Peers that are only named and were never heard, over all models. */
const NAMES_MAX = 256
/** So many are asked at once: each may be a dial that comes to nothing, and a host has places for a hundred of these. */
const ASKED_AT_ONCE = 32
/** Longer than a question and its answer take. A late answer is heard all the same. */
const TURN_MS = 5_000
/** Once each of them was asked. */
const LATER_TURN_MS = 60_000

interface Name {
  /** Who named it last, of those with the fewest names: a peer, or the search for a model. */
  by: string
  /** When its last turn began; undefined: it had none yet. */
  askedAt: number | undefined
  isAsked: boolean
}

/**
 * Peers that others say have to do with a model, and that were never heard. A name costs nothing to make up, so they are few, and asked in turns;
 * and however many one peer names, the names of others have as many places and turns.
 */
export class Hearsay {
  readonly #names = new Map<string, Name>()
  /** How many each has named. */
  readonly #shares = new Map<string, number>()
  readonly #dropped: (id: string) => void

  /** `dropped`: who made room for another. */
  constructor (dropped: (id: string) => void) { this.#dropped = dropped }

  get size (): number { return this.#names.size }

  has (id: string): boolean { return this.#names.has(id) }

  /** False where there is no room: `by` has named as many as anybody, and all of them are still to be asked or may yet answer. */
  add (id: string, by: string, now: number): boolean {
    const known = this.#names.get(id)
    if (known !== undefined) {
      if (this.#share(by) + 1 < this.#share(known.by)) {
        this.#count(known.by, -1)
        this.#count(by, 1)
        known.by = by
      }
      return true
    }
    if (this.#names.size >= NAMES_MAX && !this.#makeRoom(by, now)) return false
    this.#names.set(id, { by, askedAt: undefined, isAsked: false })
    this.#count(by, 1)
    return true
  }

  delete (id: string): void {
    const name = this.#names.get(id)
    if (name === undefined) return
    this.#names.delete(id)
    this.#count(name.by, -1)
  }

  /** Forgets those that nobody speaks of any more. */
  keep (named: ReadonlySet<string>): void {
    for (const id of this.#names.keys()) if (!named.has(id)) this.delete(id)
  }

  /** Whose turn it is to be asked; and until when, if others wait. */
  turns (now: number): { asked: string[], until: number | undefined } {
    const othersWait = [...this.#names.values()].some(({ isAsked }) => !isAsked)
    const turnMs = this.#turnMs
    const asked: string[] = []
    const turns = new Map<string, number>()
    let until = Infinity
    const ask = (id: string, { by, askedAt = now }: Name): void => {
      asked.push(id)
      turns.set(by, (turns.get(by) ?? 0) + 1)
      until = Math.min(until, askedAt)
    }
    for (const [id, name] of this.#names) {
      if (!name.isAsked) continue
      if (othersWait && now - (name.askedAt ?? now) >= turnMs) name.isAsked = false
      else ask(id, name)
    }
    while (asked.length < Math.min(ASKED_AT_ONCE, this.#names.size)) {
      const next = this.#next(turns)
      if (next === undefined) break
      next.name.isAsked = true
      next.name.askedAt = now
      ask(next.id, next.name)
    }
    return { asked, until: asked.length < this.#names.size ? until + this.#turnMs : undefined }
  }

  get #turnMs (): number {
    for (const { askedAt } of this.#names.values()) if (askedAt === undefined) return TURN_MS
    return LATER_TURN_MS
  }

  /** Of whoever has the fewest turns now, the one that was asked longest ago; of those that were not, the last that was named. */
  #next (turns: ReadonlyMap<string, number>): { id: string, name: Name } | undefined {
    let best: { id: string, name: Name } | undefined
    let bestTurns = Infinity
    let bestAt = Infinity
    for (const [id, name] of this.#names) {
      if (name.isAsked) continue
      const theirs = turns.get(name.by) ?? 0
      const at = name.askedAt ?? -Infinity
      if (theirs > bestTurns || (theirs === bestTurns && at > bestAt)) continue
      best = { id, name }
      bestTurns = theirs
      bestAt = at
    }
    return best
  }

  /** Who was asked and did not answer makes room: of hundreds of names most may be of those that are gone. And who has named more than `by` has. */
  #makeRoom (by: string, now: number): boolean {
    let most = by
    for (const [other, count] of this.#shares) if (count > this.#share(most)) most = other
    const isOthers = this.#share(most) > this.#share(by) + 1
    let least: string | undefined
    for (const [id, name] of this.#names) {
      if (name.by !== (isOthers ? most : by)) continue
      if (name.askedAt !== undefined && now - name.askedAt >= TURN_MS) { least = id; break }
      if (isOthers) least = id
    }
    if (least === undefined) return false
    this.delete(least)
    this.#dropped(least)
    return true
  }

  #share (by: string): number { return this.#shares.get(by) ?? 0 }

  #count (by: string, more: number): void {
    const count = this.#share(by) + more
    if (count > 0) this.#shares.set(by, count)
    else this.#shares.delete(by)
  }
}
