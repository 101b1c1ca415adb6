import assert from 'node:assert/strict'
import { TURN_MS, Turns } from '../../../src/transfer/turns.ts'

/** A load whose peers send at these rates, whenever they have one of its places. */
class Load {
  readonly turns = new Turns()
  readonly places = new Map<string, { peerId: string, receivedBytes: number }>()
  readonly waiting: string[] = []
  readonly changes: Array<[number, string, string]> = []
  readonly #rates: Record<string, number>
  #now = 0

  constructor (places: number, rates: Record<string, number>) {
    this.#rates = rates
    for (const peerId of Object.keys(rates)) {
      if (this.places.size < places) this.#seat(peerId)
      else this.waiting.push(peerId)
    }
  }

  get seated (): string[] { return [...this.places.keys()].sort() }

  run (ms: number): this {
    for (const until = this.#now + ms; this.#now < until;) {
      this.#now += 100
      for (const place of this.places.values()) place.receivedBytes += (this.#rates[place.peerId] ?? 0) / 10
      if (!this.turns.due(this.#now)) continue
      const change = this.turns.next(this.places.values(), this.waiting, this.#now)
      if (change === undefined) continue
      this.changes.push([this.#now, change.out, change.in])
      this.places.delete(change.out)
      this.turns.left(change.out)
      this.waiting.splice(this.waiting.indexOf(change.in), 1, change.out)
      this.#seat(change.in)
    }
    return this
  }

  #seat (peerId: string): void {
    this.places.set(peerId, { peerId, receivedBytes: 0 })
    this.turns.seated(peerId, this.#now)
  }
}

const rates = (prefix: string, count: number, rate: number): Record<string, number> => Object.fromEntries(Array.from({ length: count }, (_, i) => [`${prefix}${i}`, rate]))

describe('turns of peers that wait for a place', () => {
  it('come where all are slow, until who is fast has been found', () => {
    const load = new Load(2, { ...rates('slow', 4, 64_000), fast: 10_000_000 }).run(5 * TURN_MS)
    assert(load.seated.includes('fast'), JSON.stringify(load.changes))
  })

  it('come each ten seconds where one lags behind the others', () => {
    const load = new Load(8, { ...rates('fast', 7, 1_000_000), ...rates('slow', 4, 10_000), last: 1_000_000 }).run(4 * TURN_MS + 1_000)
    assert.deepEqual(load.changes.map(([at]) => at), [1, 2, 3, 4].map(turn => turn * TURN_MS + 100)) // it first looked at 100
    assert.deepEqual(load.seated, [...Array.from({ length: 7 }, (_, i) => `fast${i}`), 'last'])
    assert.equal(load.run(60 * TURN_MS).changes.length, 4)
  })

  it('bring back who was better than those that came', () => {
    const load = new Load(2, { good: 900_000, better: 1_000_000, ...rates('slow', 2, 50_000) }).run(60 * TURN_MS)
    assert.deepEqual(load.seated, ['better', 'good'])
    // Each of those that waited had its turn, and never a second.
    assert.deepEqual(load.changes.map(([, , peerId]) => peerId).filter(peerId => peerId.startsWith('slow')), ['slow0', 'slow1'])
    assert(load.changes.length <= 4, JSON.stringify(load.changes))
  })

  it('leave equals in peace: ever more seldom, and each is tried once', () => {
    const load = new Load(16, rates('peer', 200, 1_000_000)).run(12 * TURN_MS)
    assert(load.changes.length <= 5, JSON.stringify(load.changes))
    const others = new Load(4, rates('peer', 7, 1_000_000)).run(1_000 * TURN_MS)
    assert.equal(others.changes.length, 3)
  })

  it('take nobody for slow who has come just now', () => {
    const turns = new Turns()
    turns.seated('old', 0)
    turns.seated('new', TURN_MS - 1)
    assert.equal(turns.next([{ peerId: 'old', receivedBytes: 1_000_000 }, { peerId: 'new', receivedBytes: 0 }], ['other'], TURN_MS)?.out, 'old')
  })
})
