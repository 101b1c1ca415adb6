import assert from 'node:assert/strict'
import type { Clock } from '../../../src/base/index.ts'
import { PeerRecords, withdrew } from '../../../src/transfer/peer-records.ts'

const HOUR = 3_600_000

function records (): { records: PeerRecords, pass: (ms: number) => void } {
  let now = 0
  const clock: Clock = { now: () => now, monotonic: () => now, setTimeout: () => () => undefined }
  return { records: new PeerRecords(clock), pass: ms => { now += ms } }
}

describe('peer records', () => {
  it('ban for an hour, and each further time for four times as long, up to a week', () => {
    const { records: known, pass } = records()
    known.get('p').received.add(5, 0)
    for (const hours of [1, 4, 16, 64, 168, 168]) {
      known.ban('p', `ban of ${hours} h`)
      pass(hours * HOUR - 1)
      assert.equal(known.isBanned('p'), true)
      const [told] = known.status()
      assert.deepEqual([told?.banned, told?.banReason, told?.banSecondsLeft, told?.score, told?.receivedBytes], [true, `ban of ${hours} h`, 0.001, 0, 5])
      pass(1)
      assert.equal(known.isBanned('p'), false)
      const [after] = known.status()
      assert.deepEqual([after?.banned, after?.banReason, after?.banSecondsLeft, after?.receivedBytes], [false, undefined, undefined, 5])
      assert.ok((after?.score ?? 0) > 0)
    }
    assert.equal(known.status().length, 1)
  })

  it('take the third block within an hour that was sent in part and withdrawn for a lie', () => {
    const record = records().records.get('p')
    const told = [0, 0.5, 1, 2, 2.9, 2.95, 3].map(hours => withdrew(record, hours * HOUR))
    assert.deepEqual(told, [false, false, false, false, false, true, false])
  })

  it('know of no peer that it is banned because another is', () => {
    const { records: known } = records()
    known.ban('p', 'it lied')
    known.get('q')
    assert.deepEqual(known.status().map(({ peerId, banned }) => [peerId, banned]), [['q', false], ['p', true]])
  })
})
