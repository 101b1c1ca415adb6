import assert from 'node:assert/strict'
import { MiB } from '../../../src/base/index.ts'
import { RepairPace, secondsLeft, type RepairWork } from '../../../src/replication/repair-pace.ts'

const work = (over: Partial<RepairWork>): RepairWork => ({ here: undefined, elsewhere: [], waitingBytes: 0, waitMs: 0, ...over })
/** 1 MiB/s. */
const RATE = MiB / 1_000
const RATES = { here: RATE, elsewhere: RATE }

describe('how long a repair takes', () => {
  it('is unknown before something was measured, and when nothing runs', () => {
    const pace = new RepairPace()
    assert.equal(pace.bytesPerMs(0), undefined)
    pace.came(0, 5_000, 5_000)
    assert.equal(pace.bytesPerMs(5_000), undefined, 'that nothing came is no rate')
    assert.equal(secondsLeft(work({ here: MiB }), { here: undefined, elsewhere: RATE }), undefined)
    assert.equal(secondsLeft(work({ here: MiB, elsewhere: [{ bytes: MiB, ms: 0 }] }), { here: RATE, elsewhere: undefined }), undefined)
    assert.equal(secondsLeft(work({ waitingBytes: MiB }), RATES), undefined)
  })

  it('goes by the last measures, slows when nothing comes, and forgets', () => {
    const pace = new RepairPace()
    for (let at = 1_000; at <= 60_000; at += 1_000) pace.came(8 * MiB, 1_000, at)
    assert.ok(Math.abs((pace.bytesPerMs(60_000) ?? 0) / RATE - 8) < 0.01)
    for (let at = 61_000; at <= 120_000; at += 1_000) pace.came(MiB, 1_000, at)
    const slow = (pace.bytesPerMs(120_000) ?? 0) / RATE
    assert.ok(slow > 1 && slow < 2, `${slow} MiB/s a minute after it fell from 8 to 1`)
    pace.came(0, 20_000, 140_000)
    assert.ok((pace.bytesPerMs(140_000) ?? 0) / RATE < slow * 0.7)
    assert.equal(pace.bytesPerMs(140_000 + 2 * 3_600_000), undefined)
  })

  it('does not measure by the first bytes, whose time is not known, nor over a pause', () => {
    const pace = new RepairPace()
    pace.cameSince(0, 1_000)
    pace.cameSince(4 * MiB, 9_000)
    assert.equal(pace.bytesPerMs(9_000), undefined)
    pace.cameSince(0, 9_500)
    pace.cameSince(MiB, 10_000)
    assert.ok(Math.abs((pace.bytesPerMs(10_000) ?? 0) / RATE - 1) < 0.03)
    pace.cameSince(64 * MiB, 100_000)
    assert.ok(Math.abs((pace.bytesPerMs(100_000) ?? 0) / RATE - 1) < 0.03)
  })

  it('shares what waits among what runs, and is at least as long as the last one', () => {
    assert.equal(secondsLeft(work({ here: 4 * MiB, elsewhere: [{ bytes: 4 * MiB, ms: 0 }], waitingBytes: 8 * MiB }), RATES), 8)
    assert.equal(secondsLeft(work({ here: 10 * MiB, elsewhere: [{ bytes: MiB, ms: 0 }] }), RATES), 10)
    assert.equal(secondsLeft(work({ elsewhere: [{ bytes: 10 * MiB, ms: 4_000 }] }), RATES), 6)
  })

  it('gives what is late elsewhere more time, and what may not begin yet its grace', () => {
    assert.equal(secondsLeft(work({ elsewhere: [{ bytes: 10 * MiB, ms: 30_000 }] }), RATES), 3)
    assert.equal(secondsLeft(work({ here: MiB, waitingBytes: MiB, waitMs: 60_000 }), RATES), 60)
    assert.equal(secondsLeft(work({ here: MiB, waitMs: 60_000 }), RATES), 1, 'nothing waits')
  })
})
