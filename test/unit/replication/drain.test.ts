import assert from 'node:assert/strict'
import { Bitfield } from '../../../src/base/index.ts'
import { ReplicaBench, policyOf, proofOf } from '../../support/replica-bench.ts'

const SHARDS = 4

describe('a drain of what is only cached here', () => {
  /** Three others promised it and went; two that have none of it take what they are offered. */
  function alone (goodbye: boolean): ReplicaBench {
    const bench = new ReplicaBench({ shards: SHARDS, policies: [policyOf()], kept: false })
    const holders = ['a', 'b', 'c']
    const has = new Map(['d', 'e'].map(id => [id, new Bitfield(SHARDS)]))
    bench.reachable = [...holders, ...has.keys()]
    bench.answers = (to, message) => {
      const committed = holders.includes(to) ? bench.all : has.get(to)?.bytes ?? bench.all
      if (message.type === 'state') return [bench.state(to, [{ committed }], { ackIncarnation: message.incarnation, ackVersion: message.version })]
      if (message.type === 'challenge') return [proofOf(message, to)]
      if (message.type !== 'offer') return []
      has.get(to)?.set(message.shard)
      const { id, model, shard } = message
      return [{ type: 'accept', id, model, shard }, { type: 'commit', model, shard }]
    }
    for (const id of holders) bench.says(id, [{ committed: bench.all }])
    bench.run(60)
    if (goodbye) for (const id of holders) bench.says(id, [{ committed: bench.all }], { leaving: true })
    for (const id of holders) bench.silent.add(id)
    bench.run(25)
    assert.deepEqual(bench.holders(), ['self cached', 'a down', 'b down', 'c down'])
    return bench
  }
  const left = (bench: ReplicaBench): number => bench.replicator.drainStatus(bench.now).left.length

  it('hands over what nobody else is known to have, and is not over before that', () => {
    const bench = alone(false)
    bench.replicator.drain(true, bench.now)
    assert.equal(left(bench), SHARDS)
    bench.run(120)
    assert.equal(left(bench), 0)
    assert.ok(bench.holders().some(holder => ['d proven', 'e proven'].includes(holder)))
  })

  it('waits for those who said goodbye, copies nothing when they come back, and what they have when they do not', () => {
    const [returned, gone] = [alone(true), alone(true)]
    for (const bench of [returned, gone]) {
      bench.replicator.drain(true, bench.now)
      bench.run(300)
      assert.equal(left(bench), SHARDS)
      assert.deepEqual(bench.offeredTo(), [])
    }
    for (const id of ['a', 'b', 'c']) {
      returned.silent.delete(id)
      returned.says(id, [{ committed: returned.all }], { incarnation: `${id} again` })
    }
    returned.run(60)
    assert.equal(left(returned), 0)
    assert.deepEqual(returned.offeredTo(), [])
    gone.run(400)
    assert.equal(left(gone), 0)
    assert.ok(gone.offeredTo().length >= SHARDS)
  })

  it('copies nothing that others have', () => {
    const bench = new ReplicaBench({ shards: SHARDS, policies: [policyOf({ target: 2 })], kept: false })
    bench.reachable = ['a', 'b', 'c']
    bench.answers = (to, message) => {
      if (message.type === 'state') return [bench.state(to, [to === 'c' ? {} : { committed: bench.all }], { ackIncarnation: message.incarnation, ackVersion: message.version })]
      return message.type === 'challenge' ? [proofOf(message, to)] : []
    }
    for (const id of ['a', 'b']) bench.says(id, [{ committed: bench.all }])
    bench.run(5)
    bench.replicator.drain(true, bench.now)
    assert.equal(left(bench), 0)
    bench.run(60)
    assert.deepEqual(bench.offeredTo(), [])
  })
})
