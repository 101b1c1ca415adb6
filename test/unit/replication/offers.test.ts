import assert from 'node:assert/strict'
import { Bitfield } from '../../../src/base/index.ts'
import { ReplicaBench, policyOf, proofOf } from '../../support/replica-bench.ts'

const SHARDS = 80

describe('a taker that accepts what it is offered and gets nothing of it', () => {
  /** This node and `a` hold all; `hung` has most space, and the others take what they are offered at once. `hung` says how that one answers. */
  function swarm ({ isLast = false, gets = (): boolean => false } = {}): { bench: ReplicaBench, run: (seconds: number) => void, left: () => number, offered: () => number } {
    const bench = new ReplicaBench({ shards: SHARDS, policies: [policyOf()], kept: true })
    const has = new Map(['b', 'c', 'd', 'hung'].map(id => [id, new Bitfield(SHARDS)]))
    bench.reachable = ['a', ...has.keys()]
    bench.answers = (to, message) => {
      const state = bench.state(to, [{ committed: to === 'a' ? bench.all : has.get(to)?.bytes ?? bench.all }], { freeBytes: to === 'hung' ? 1e15 : 1e12 })
      if (message.type === 'state') return [state]
      if (message.type === 'challenge') return [proofOf(message, to)]
      if (message.type !== 'offer') return []
      const { id, model, shard } = message
      if (to === 'hung' && !gets()) return [{ type: 'accept', id, model, shard }]
      has.get(to)?.set(shard)
      return [{ type: 'accept', id, model, shard }, { type: 'commit', model, shard }]
    }
    if (!isLast) bench.says('a', [{ committed: bench.all }])
    const run = (seconds: number): void => { bench.run(seconds) }
    return { bench, run, left: () => bench.replicator.models(bench.now)[0]?.deficitShards ?? NaN, offered: () => bench.offeredTo().filter(id => id === 'hung').length }
  }

  it('holds up no more than half of the offers that may be open', () => {
    const { run, left } = swarm()
    run(180)
    assert.ok(left() <= 4 + 32, `${left()} are still lacking`)
  })

  it('holds up last copies no more than that, and others not for these', () => {
    const { bench, run, left } = swarm({ isLast: true })
    run(180)
    assert.ok(left() <= 4 + 32, `${left()} are still lacking`)
    assert.ok(bench.replicator.models(bench.now).every(({ replicasMin }) => replicasMin >= 1))
  })

  it('is asked again only after a while, ever more rarely, and as before when it gets something', () => {
    let gets = false
    const { bench, run, offered } = swarm({ gets: () => gets })
    // Nobody else has room.
    bench.reachable = ['a', 'hung']
    run(60)
    const before = offered()
    run(3_600)
    const again = offered() - before
    assert.ok(again >= 4 && again <= 4 * 5, String(again))
    gets = true
    run(1_000)
    assert.equal(bench.replicator.models(bench.now)[0]?.deficitShards, 0)
  })
})
