import assert from 'node:assert/strict'
import { PEERS_TRACKED_MAX } from '../../../src/base/index.ts'
import { addStranger } from '../../../src/replication/context.ts'
import { Peer } from '../../../src/replication/peer-table.ts'
import { highest, nameHash, weight } from '../../../src/replication/rendezvous.ts'
import { ReplicaBench, policyOf } from '../../support/replica-bench.ts'

const donors = Array.from({ length: 600 }, (_, i) => `donor ${i}`)

describe('replication among many peers', () => {
  it('asks each of hundreds of candidates for its space once, and makes its offers', () => {
    const bench = new ReplicaBench({ shards: 64, policies: [policyOf()] })
    bench.reachable = donors
    const asked = new Map<string, number>()
    bench.answers = (to, message) => {
      if (message.type !== 'state') return []
      asked.set(to, (asked.get(to) ?? 0) + 1)
      return message.wantsReply ? [bench.state(to, [])] : []
    }
    bench.run(10)
    assert.ok(asked.size > 300, 'of as many as were more than it once remembered')
    assert.deepEqual([...asked].filter(([, times]) => times > 1), [])
    assert.equal(bench.offeredTo().length, 64, 'one for each last copy')
  })

  it('forgets first who cannot be reached', () => {
    const strangers = new Map<string, Peer>()
    const reachable = ['first', 'last']
    const context = { strangers, ports: { reachable: () => reachable } } as unknown as Parameters<typeof addStranger>[0]
    for (const id of ['first', ...Array.from({ length: PEERS_TRACKED_MAX }, (_, i) => `gone ${i}`), 'last']) addStranger(context, new Peer(id, 0))
    assert(strangers.has('first') && strangers.has('last'))
    assert.ok(strangers.size <= PEERS_TRACKED_MAX)
    const here = Array.from({ length: PEERS_TRACKED_MAX + 1 }, (_, i) => `here ${i}`)
    reachable.push(...here)
    for (const id of here) addStranger(context, new Peer(id, 0))
    assert.equal(strangers.size, PEERS_TRACKED_MAX, 'bounded, also when all of them can be')
  })

  it('finds those that rank highest as sorting does', () => {
    const peers = donors.map(id => ({ id, hash: nameHash(id) }))
    const except = (id: string): boolean => id.endsWith('7')
    for (let shard = 0; shard < 50; shard++) {
      const sorted = peers.filter(({ id }) => !except(id)).sort((a, b) => weight(1, shard, b.hash) - weight(1, shard, a.hash))
      assert.deepEqual(highest(1, shard, peers, { count: 16, except }), sorted.slice(0, 16))
    }
    assert.deepEqual(highest(1, 0, peers.slice(0, 3), { count: 16, except: () => false }).length, 3)
  })
})
