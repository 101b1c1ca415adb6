import assert from 'node:assert/strict'
import { knownHolders } from '../../../src/node/holders.ts'
import type { HolderStatus, ShardStatus } from '../../../src/replication/types.ts'

describe('holders of a model', () => {
  const shard = (id: number, holders: Record<string, HolderStatus['state']>): ShardStatus => ({
    shard: id,
    bytes: 10,
    replicas: 1,
    repairing: false,
    holders: Object.entries(holders).map(([peerId, state]) => ({ peerId, state, provenAgoMs: undefined, labels: {} }))
  })
  const model = { self: 'self', bytes: 25 }

  it('are those that replication knows of, though nothing was exchanged with them', () => {
    const shards = [shard(0, { self: 'proven', a: 'proven', b: 'claimed', gone: 'down' }), shard(1, { a: 'cached', gone: 'down' })]
    assert.deepEqual(knownHolders([], shards, model), [{ peerId: 'a', presentBytes: 25, complete: true }, { peerId: 'b', presentBytes: 10, complete: false }])
  })

  it('are told once, with the most that is known of them', () => {
    const heard = [{ peerId: 'a', presentBytes: 3, complete: false }, { peerId: 'b', presentBytes: 25, complete: true }]
    assert.deepEqual(knownHolders(heard, [shard(0, { a: 'draining', b: 'proven' }), shard(1, {})], model), [{ peerId: 'a', presentBytes: 10, complete: false }, { peerId: 'b', presentBytes: 25, complete: true }])
    assert.deepEqual(knownHolders(heard, [], model), heard)
  })
})
