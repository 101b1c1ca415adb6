import assert from 'node:assert/strict'
import { Bitfield, MiB } from '../../../src/base/index.ts'
import { ReplicaBench, policyOf, proofOf } from '../../support/replica-bench.ts'

const SHARDS = 1_000

describe('a model of many shards', () => {
  it('of which nobody promises what is here is promised with one sync, looked at once, and as far as the donation goes', () => {
    const bench = new ReplicaBench({ shards: SHARDS, kept: false, policies: [policyOf()], settings: { donateBytes: 400 * 10 * MiB } })
    let looks = 0
    bench.diskFreeBytes = () => { looks++; return 1e15 }
    let most = 0
    bench.run(120, () => {
      most = Math.max(most, looks)
      looks = 0
    })
    assert.deepEqual(bench.saves, [400])
    assert.ok(most < 10, `it summed up ${most} times in one tick`)
  })

  it('is promised anew with one sync after the ledger was lost', () => {
    const bench = new ReplicaBench({ shards: SHARDS, kept: false, ledgerLostMs: 0, settings: { donateBytes: 400 * 10 * MiB } })
    bench.answers = (to, message) => message.type === 'challenge' ? [proofOf(message, to)] : []
    const rare = new Bitfield(SHARDS)
    for (let shard = 300; shard < SHARDS; shard++) rare.set(shard)
    bench.says('holder', [{ policies: [policyOf().bytes], committed: rare.bytes }])
    bench.tick()
    assert.deepEqual(bench.saves, [400])
    const promised = [0, 299, 399, 400].map(shard => bench.holders(shard)[0])
    assert.deepEqual(promised, ['self proven', 'self proven', 'self proven', 'self cached'], 'first what nobody else promises')
  })
})
