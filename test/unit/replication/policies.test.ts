import assert from 'node:assert/strict'
import { shuffle, seededRandom } from '../../../src/base/index.ts'
import { effectivePolicy, mergePolicies, toldPolicies } from '../../../src/replication/policies.ts'
import type { PolicyRecord } from '../../../src/replication/types.ts'

const MAX = 16
const record = (publisher: string, target: number, sequence = 1): PolicyRecord => ({ model: 'm', min: 0, target, max: target, sequence, publisher, bytes: new TextEncoder().encode(`${publisher} ${target} ${sequence}`) })
const many = (name: string, target: number, sequence: number): PolicyRecord[] => Array.from({ length: MAX }, (_, i) => record(`${name}${i}`, target, sequence))

/** One node's knowledge, that takes in what it is told. */
class Known {
  records: ReadonlyMap<string, PolicyRecord> = new Map()
  readonly ledger = new Map<string, PolicyRecord>()
  readonly self: string

  constructor (...given: PolicyRecord[]) {
    this.self = 'self'
    this.take(...given)
  }

  get target (): number { return effectivePolicy(this.records.values()).target }

  take (...given: PolicyRecord[]): this {
    const { records, saved, dropped } = mergePolicies(this.records, given, this.self)
    for (const { publisher } of dropped) this.ledger.delete(publisher)
    for (const one of saved) this.ledger.set(one.publisher, one)
    this.records = records
    return this
  }

  /** As told to another. */
  tell (other: Known): void { other.take(...[...this.records.values()].filter(({ bytes }) => toldPolicies(this.records, this.self).includes(bytes))) }

  restart (): void {
    this.records = mergePolicies(new Map(), this.ledger.values(), this.self).records
  }
}

describe('policies', () => {
  it('of a publisher outlive any number of names that ask for more and then for nothing', () => {
    const known = new Known(record('honest', 3))
    known.take(...many('throwaway', 64, 1)).take(...many('throwaway', 0, 2))
    assert.equal(known.target, 3)
    known.restart()
    assert.equal(known.target, 3)
    assert.ok(known.records.size <= MAX)
  })

  it('are taken from a publisher who asks after all places were filled by names that ask for nothing', () => {
    const known = new Known(...many('throwaway', 64, 1)).take(...many('throwaway', 0, 2))
    for (let round = 0; round < 5; round++) known.take(...many(`other${round}-`, 0, 1))
    assert.equal(known.take(record('honest', 3)).target, 3)
    assert.equal(known.records.size, MAX)
    assert.equal(known.ledger.size, MAX, 'what went is not kept on the disk')
    known.restart()
    assert.equal(known.target, 3)
  })

  it('of this node are always taken, never go, and are told first', () => {
    const known = new Known(...many('throwaway', 64, 1)).take(record('self', 2))
    assert.ok(known.records.has('self'))
    known.take(...many('throwaway', 0, 2))
    assert.equal(known.target, 2)
    known.take(record('self', 0, 2)).take(...many('more', 5, 1))
    assert.equal(known.records.get('self')?.sequence, 2, 'nor when it asks for nothing')
    assert.deepEqual(toldPolicies(known.records, 'self')[0], record('self', 0, 2).bytes)
    assert.equal(toldPolicies(known.records, 'self').length, MAX)
  })

  it('of a publisher who asks no more do not come back with a holder that was away, also where the end of them is all that was heard', () => {
    const late = new Known(record('publisher', 0, 2))
    late.restart()
    const away = new Known(record('publisher', 3, 1))
    away.tell(late)
    assert.equal(late.target, 0)
    late.tell(away)
    assert.equal(away.target, 0)
    away.restart()
    assert.equal(away.target, 0)
  })

  it('that come back because there was no room for the end of them end when that is told again', () => {
    const late = new Known(...many('throwaway', 0, 1)).take(record('publisher', 0, 2))
    assert.ok(!late.records.has('publisher'))
    assert.equal(late.take(record('publisher', 3, 1)).target, 3, 'that is for the safe side')
    assert.equal(late.take(record('publisher', 0, 2)).target, 0)
    assert.equal(late.take(record('publisher', 3, 1)).target, 0)
  })

  it('come out the same in whatever order they came, while there is room', () => {
    const given = [record('a', 3, 1), record('a', 0, 2), record('b', 2, 5), record('b', 4, 4), record('c', 0, 1), record('d', 1, 1)]
    for (let seed = 0; seed < 50; seed++) {
      const known = new Known(...shuffle(seededRandom(seed), [...given]))
      assert.deepEqual([...known.records.values()].map(({ publisher, sequence }) => `${publisher} ${sequence}`).sort(), ['a 2', 'b 5', 'c 1', 'd 1'])
      assert.equal(known.target, 2)
      assert.equal(known.ledger.size, known.records.size)
      for (const [publisher, one] of known.records) assert.equal(known.ledger.get(publisher), one)
    }
  })
})
