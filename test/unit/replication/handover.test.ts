import assert from 'node:assert/strict'
import { ReplicaBench, policyOf, proofOf } from '../../support/replica-bench.ts'
import type { ReplicaMessage } from '../../../src/replication/types.ts'

type Keep = Extract<ReplicaMessage, { type: 'keep' }>

/** This node, a, b and c hold a model of one shard, of which two are wanted; `keeps` says what becomes of the promises of the others. */
function surplus (keeps: (from: string, promise: Keep) => Keep[]): { bench: ReplicaBench, sent: Keep[], letGo: () => boolean } {
  const bench = new ReplicaBench({ shards: 1, policies: [policyOf({ target: 2, max: 2 })], kept: true })
  const holders = ['a', 'b', 'c']
  const sent: Keep[] = []
  bench.reachable = holders
  bench.answers = (to, message) => {
    if (message.type === 'state') return [bench.state(to, holders.includes(to) ? [{ committed: bench.all }] : [{}], { ackIncarnation: message.incarnation, ackVersion: message.version })]
    if (message.type === 'challenge') return [proofOf(message, to)]
    if (message.type === 'keep') sent.push(message)
    if (message.type !== 'release') return []
    return keeps(to, { type: 'keep', id: message.id, model: message.model, shard: message.shard, ok: true })
  }
  for (const id of holders) bench.says(id, [{ committed: bench.all }])
  bench.tick()
  bench.replicator.model({ cid: 'm', shardBytes: [1], held: [0], kept: false }, bench.now)
  return { bench, sent, letGo: () => bench.notes.some(({ type }) => type === 'released') }
}

describe('letting go', () => {
  it('is not held up by who has nothing to let go of, and asks for promises', () => {
    const { bench, sent, letGo } = surplus((_from, promise) => [promise])
    for (let second = 0; second < 3_600 && !letGo(); second++) {
      if (second % 100 === 0) {
        bench.replicator.receive('stranger', { type: 'release', id: 'x', model: 'm', shard: 0 }, bench.now)
        bench.says('neighbour', [{}])
        bench.replicator.receive('neighbour', { type: 'release', id: 'x', model: 'm', shard: 0 }, bench.now)
      }
      bench.tick()
    }
    assert.ok(letGo())
    assert.ok(sent.length > 0 && sent.every(({ ok }) => !ok))
  })

  it('does not rely on promises that ran out while this node stood still, and asks again', () => {
    const late: Array<[string, Keep]> = []
    let isLate = true
    const { bench, letGo } = surplus((from, promise) => {
      if (!isLate) return [promise]
      late.push([from, promise])
      return []
    })
    for (let second = 0; second < 3_600 && late.length === 0; second++) bench.tick()
    assert.equal(late.length, 3)
    bench.now += 5 * 60_000
    isLate = false
    // What waited at the socket is heard before the first tick.
    for (const [from, promise] of late) bench.replicator.receive(from, promise, bench.now)
    assert.ok(!letGo())
    bench.run(600)
    assert.ok(letGo())
  })
})
