import assert from 'node:assert/strict'
import { seededRandom } from '../../../src/base/index.ts'
import { durability, meanTimeToLossMs } from '../../../src/replication/durability.ts'

describe('the durability estimate', () => {
  it('has the mean time to loss of the chain, as simulated', () => {
    const random = seededRandom(5)
    for (const replicas of [1, 2, 3]) {
      const [repairMs, hostLossMs] = [1, 8]
      let total = 0
      const runs = 4_000
      for (let run = 0; run < runs; run++) {
        for (let left = replicas; left > 0;) {
          const lossRate = left / hostLossMs
          const repairRate = left < replicas ? 1 / repairMs : 0
          total += -Math.log(1 - random.next()) / (lossRate + repairRate)
          left += random.next() < lossRate / (lossRate + repairRate) ? -1 : 1
        }
      }
      const ratio = total / runs / meanTimeToLossMs(replicas, repairMs, hostLossMs)
      assert.ok(ratio > 0.93 && ratio < 1.07, `${replicas} replicas: ${ratio}`)
    }
  })

  it('is a probability that grows with replicas and falls with repair time and shards', () => {
    const of = (target: number, shards: number, repairMs: number): number => durability({ models: [{ target, shards }], repairMs })
    assert.ok(of(1, 1, 60_000) > 0.36 && of(1, 1, 60_000) < 0.38) // e^-1: one host in a year
    assert.ok(of(2, 100, 600_000) < of(3, 100, 600_000))
    assert.ok(of(2, 100, 6_000_000) < of(2, 100, 600_000))
    assert.ok(of(2, 1_000, 600_000) < of(2, 100, 600_000))
    assert.equal(of(0, 100, 1), 1)
    assert.equal(durability({ models: [], repairMs: 1 }), 1)
  })
})
