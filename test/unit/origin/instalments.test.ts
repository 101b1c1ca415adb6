import assert from 'node:assert/strict'
import { ORIGIN_INSTALMENTS_MAX } from '../../../src/base/index.ts'
import { isDue } from '../../../src/origin/instalments.ts'

const bytesTotal = 1_000_000

describe('origin: when an instalment is due', () => {
  const rows: Array<[string, Parameters<typeof isDue>[0], boolean]> = [
    ['small files that came just now wait for others', { count: 0, bytes: 700, waitedMs: 100, bytesTotal }, false],
    ['but not for long', { count: 0, bytes: 700, waitedMs: 1_000, bytesTotal }, true],
    ['a large one is one at once', { count: 0, bytes: bytesTotal / 48, waitedMs: 0, bytesTotal }, true],
    ['later, small ones wait until they are many', { count: 14, bytes: bytesTotal / 49, waitedMs: 60_000, bytesTotal }, false],
    ['or a large one comes', { count: 14, bytes: bytesTotal / 48, waitedMs: 0, bytesTotal }, true],
    ['the last one is for the rest', { count: ORIGIN_INSTALMENTS_MAX - 1, bytes: bytesTotal, waitedMs: 60_000, bytesTotal }, false],
    ['a model without bytes is one, too', { count: 0, bytes: 0, waitedMs: 0, bytesTotal: 0 }, true]
  ]
  for (const [what, state, due] of rows) it(what, () => { assert.equal(isDue(state), due) })

  it('never makes too many, however the files are', () => {
    for (const size of [1, 100, bytesTotal / 100, bytesTotal / 48, bytesTotal / 30]) {
      let count = 0
      let bytes = 0
      for (let come = 0; come < bytesTotal; come += size) {
        bytes += size
        if (!isDue({ count, bytes, waitedMs: 5_000, bytesTotal })) continue
        count++
        bytes = 0
      }
      assert.ok(count < ORIGIN_INSTALMENTS_MAX, `${count} of files of ${size} bytes`)
    }
  })
})
