import assert from 'node:assert/strict'
import { Hearsay } from '../../../src/replication/hearsay.ts'

const NAMES_MAX = 256
const ASKED_AT_ONCE = 32
const TURN_MS = 5_000

const namesOf = (by: string, count: number): string[] => Array.from({ length: count }, (_, i) => `${by} ${i}`)

describe('names of peers that were never heard', () => {
  const dropped: string[] = []
  let hearsay: Hearsay
  beforeEach(() => {
    dropped.length = 0
    hearsay = new Hearsay(id => { dropped.push(id) })
  })
  const name = (by: string, count: number, now = 0): number => namesOf(by, count).filter(id => hearsay.add(id, by, now)).length

  it('are all asked, and all the time, while they are few', () => {
    name('a', ASKED_AT_ONCE)
    for (const now of [0, TURN_MS, 100 * TURN_MS]) {
      const { asked, until } = hearsay.turns(now)
      assert.deepEqual([asked.length, until], [ASKED_AT_ONCE, undefined])
    }
  })

  it('are asked in turns where they are many, each before any for a second time', () => {
    name('a', NAMES_MAX)
    const asked = new Set<string>()
    let now = 0
    for (let turn = 0; turn < NAMES_MAX / ASKED_AT_ONCE; turn++) {
      const turns = hearsay.turns(now)
      assert.equal(turns.asked.length, ASKED_AT_ONCE)
      for (const id of turns.asked) asked.add(id)
      assert(turns.until !== undefined && turns.until > now)
      assert.deepEqual(hearsay.turns(turns.until - 1).asked.sort(), turns.asked.sort())
      now = turns.until
    }
    assert.equal(asked.size, NAMES_MAX)
    assert.ok(now >= (NAMES_MAX / ASKED_AT_ONCE - 1) * TURN_MS)
    const again = hearsay.turns(now)
    assert.ok((again.until ?? 0) - now > TURN_MS, 'more rarely')
  })

  it('of who names many make room for those of others, until all have as many', () => {
    assert.equal(name('liar', 1_000), NAMES_MAX)
    assert.equal(name('a', 100), 100)
    assert.equal(name('b', 100), 85, 'a third')
    assert.deepEqual([dropped.filter(id => id.startsWith('liar')).length, dropped.filter(id => id.startsWith('b')).length], [171, 0])
    assert.equal(name('liar', 1_000), 85, 'those it has')
    const first = hearsay.turns(0).asked.map(id => id.split(' ')[0])
    for (const by of ['liar', 'a', 'b']) assert.ok(first.filter(other => other === by).length >= 10, 'turns are shared as well')
  })

  it('that were asked and did not answer make room for new ones of whoever named them', () => {
    name('a', NAMES_MAX)
    hearsay.turns(0)
    assert.equal(hearsay.add('another', 'a', TURN_MS - 1), false)
    assert.equal(hearsay.add('another', 'a', TURN_MS), true)
    assert.equal(dropped.length, 1)
    assert.ok(hearsay.turns(TURN_MS).asked.includes('another'), 'the last first')
  })

  it('are no more of who named them when another does, who has fewer', () => {
    name('liar', NAMES_MAX)
    assert.equal(hearsay.add('liar 7', 'honest', 0), true)
    name('a', 200)
    assert.equal(hearsay.has('liar 7'), true)
  })

  it('go when nobody speaks of them any more', () => {
    name('a', NAMES_MAX)
    hearsay.keep(new Set(['a 5']))
    assert.deepEqual(hearsay.turns(0), { asked: ['a 5'], until: undefined })
    assert.equal(name('b', NAMES_MAX), NAMES_MAX - 1)
  })
})
