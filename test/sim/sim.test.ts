import assert from 'node:assert/strict'
import { firstCatch } from '../../scripts/sim/report.ts'
import { plants } from '../../scripts/sim/planted.ts'
import { FAULTS, type FaultName, type SimOptions } from '../../scripts/sim/types.ts'
import { runSeed } from '../../scripts/sim/world.ts'

const options = (seed: number, faults?: FaultName[]): SimOptions => ({ seed, nodes: 12, hours: 2, faults, plant: undefined })

function passes (each: SimOptions): void {
  const { violation, faults } = runSeed(each)
  assert.equal(violation, undefined, `npm run sim -- --seed ${each.seed} --nodes ${each.nodes} --hours ${each.hours}${each.faults === undefined ? '' : ` --faults ${each.faults.join(',')}`}\n${violation?.invariant}: ${violation?.text} (${faults.join(', ')})`)
}

/** Two minutes of processor for each test: `npm test` runs them behind the others, where the first has waited two minutes to compute for ten seconds. */
const PROCESSOR_SECONDS_MAX = 120

function boundProcessorTime (suite: Mocha.Suite): void {
  suite.timeout(900_000) // against hanging
  let before = process.cpuUsage()
  suite.beforeEach(() => { before = process.cpuUsage() })
  suite.afterEach(() => {
    const { user, system } = process.cpuUsage(before)
    assert.ok((user + system) / 1e6 < PROCESSOR_SECONDS_MAX, `it took ${(user + system) / 1e6} s of processor`)
  })
}

describe('replication, simulated', function () {
  boundProcessorTime(this)

  it('is the same to the byte for the same seed, and not for another', () => {
    const run = (seed: number): string => runSeed({ ...options(seed), hours: 3, faults: ['crash', 'message-loss', 'hang', 'rot', 'partition'] }).hash
    assert.equal(run(77), run(77))
    assert.notEqual(run(77), run(78))
  })

  it('writes the same trace twice', () => {
    const run = (): string => runSeed({ ...options(5), faults: ['crash', 'reorder', 'replay'] }, true).trace.join('\n')
    assert.equal(run(), run())
  })

  for (const fault of FAULTS) {
    it(`holds under ${fault}`, () => {
      for (let seed = 1; seed <= 6; seed++) passes(options(seed, [fault]))
    })
  }

  const found: Array<[string, SimOptions]> = [
    ['a holder that only answers pings, behind a one-way cut from the only other', { seed: 813, nodes: 10, hours: 2, faults: ['one-way', 'hang', 'pin', 'leave', 'forget'], plant: undefined }],
    ['a publisher that had given up all of a model which its candidates have', { seed: 1_028, nodes: 12, hours: 2, faults: [], plant: undefined }],
    ['a failing volume that fetched again what others had often enough', { seed: 81, nodes: 14, hours: 4, faults: ['drain', 'full-disk', 'disk-loss', 'rot', 'bad-volume'], plant: undefined }],
    ['a liar whose neighbours learn slowly who else has what it offers', { seed: 2, nodes: 14, hours: 4, faults: ['liar', 'domain-loss', 'slow', 'cache-pressure'], plant: undefined }],
    ['a drain beside a one-way cut from a holder', { seed: 63, nodes: 14, hours: 4, faults: ['join', 'bad-volume', 'skew', 'loss', 'one-way'], plant: undefined }],
    ['a reboot and a crash a moment apart', { seed: 15, nodes: 12, hours: 3, faults: ['ledger-loss', 'crash', 'loss', 'cache-pressure', 'reboot', 'pin'], plant: undefined }],
    ['a lost ledger whose successor could not be written for a while', { seed: 1_533, nodes: 10, hours: 2, faults: ['reorder', 'ledger-loss', 'forget', 'slow', 'full-disk'], plant: undefined }],
    ['a promise to keep that counted on the leaver to judge a silent holder', { seed: 1_238, nodes: 10, hours: 2, faults: ['skew', 'one-way'], plant: undefined }],
    ['one of those that took what was drained, wedged before the last shard was taken', { seed: 3_059, nodes: 10, hours: 2, faults: ['hang', 'drain', 'pin'], plant: undefined }],
    ['a full ledger that kept a surplus for an hour', { seed: 3_433, nodes: 10, hours: 2, faults: ['full-disk', 'publishers'], plant: undefined }],
    ['copies of holders that were there, behind one-way cuts, or said goodbye and were heard late', { seed: 8_689, nodes: 10, hours: 2, faults: undefined, plant: undefined }],
    ['holders that all acted at once when the brake was released', { seed: 2_707, nodes: 14, hours: 4, faults: undefined, plant: undefined }],
    ['what a user keeps on a volume that rots, mended again and again', { seed: 5_036, nodes: 14, hours: 4, faults: undefined, plant: undefined }],
    ['a fetch under way at a node that answers pings and nothing else', { seed: 8_796, nodes: 14, hours: 4, faults: undefined, plant: undefined }],
    ['somebody who had just loaded a model, and promised more than it gives', { seed: 210, nodes: 14, hours: 4, faults: [...FAULTS], plant: undefined }],
    ['one of those that took what was drained, and began to lie before the last shard was taken', { seed: 185, nodes: 14, hours: 4, faults: [...FAULTS], plant: undefined }],
    ['a donor that is full because its user no more keeps what others want', { seed: 89, nodes: 14, hours: 4, faults: ['publishers'], plant: undefined }]
  ]
  for (const [what, each] of found) it(`holds where it once did not: ${what}`, () => { passes(each) })

  it('holds under mixed faults', () => {
    for (let seed = 1_000; seed < 1_130; seed++) passes(options(seed))
  })
})

describe('the simulator sees planted bugs', function () {
  boundProcessorTime(this)

  for (const plant of plants) {
    it(`${plant.name}: ${plant.what}`, () => {
      const caught = firstCatch({ seed: plant.seed ?? 1, nodes: 12, hours: plant.hours ?? 3, faults: plant.faults, plant: plant.name }, 60)
      assert.notEqual(caught, undefined, `${plant.name} went unseen`)
    })
  }
})
