import assert from 'node:assert/strict'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { MiB } from '../../src/base/index.ts'
import { seedOf } from '../compliance/store-fixtures.ts'
import { loadSmall, loadWhileCut } from '../integration/lanes/cases.ts'

const seed = seedOf()

/** What is not in use does not count: it is collected when the machine needs room. */
setFlagsFromString('--expose-gc')
const collected: () => void = runInNewContext('gc')

describe(`lanes, for long (seed ${seed})`, () => {
  it('cut at random bytes 500 times: every load ends complete and right, and no descriptor is left', async () => {
    const { cuts } = await loadWhileCut(seed, 500, 8)
    assert(cuts >= 500)
  })

  it('1,000 small loads, each over a lane of its own: nothing is left, and memory does not grow', async () => {
    const rss = await loadSmall(seed, 1_000, collected)
    const median = (values: number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0
    const [early, late] = [median(rss.slice(200, 400)), median(rss.slice(-200))]
    assert(late - early < 32 * MiB, `${((late - early) / MiB).toFixed(0)} MiB more after 1,000 loads than after 300`)
  })
})
