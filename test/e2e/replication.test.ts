import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MiB, seededRandom } from '../../src/base/index.ts'
import { QUICK, killRounds, pauses, placed, rollingRestart, secondsToStart, type Size } from '../support/replication-cases.ts'

const SEED = Number(process.env.SHOAL_SEED ?? Date.now() % 1_000_000)

/** The short version of test/long/replication.test.ts. */
describe(`replication, processes (seed ${SEED})`, function () {
  this.timeout(120_000)
  // On a clock twice as fast the processes are missed and replaced no sooner: they may have to wait for a processor.
  const replication = { ...QUICK, suspectMs: 6_000, downMs: 8_000, graceTwoCopiesMs: 2_000, graceDefaultMs: 10_000, brakeWindowMs: 10_000 }
  const size: Size = { nodes: 7, modelBytes: 24 * MiB, rounds: 1, patienceMs: 60_000, replication, clockTimes: 2 }
  let root = ''
  beforeEach(async () => { root = await mkdtemp(join(tmpdir(), 'shoal-replication-')) })
  afterEach(async () => { await rm(root, { recursive: true, force: true }) })

  it('outlives two holders killed at once, and two more', async () => {
    const at = await placed(root, size)
    await using _ = at.swarm
    await killRounds(at, size, seededRandom(SEED), () => undefined)
  })

  it('waits for a holder that stands still for a moment, and replaces one that does for long', async () => {
    const at = await placed(root, size)
    await using _ = at.swarm
    await pauses(at, size, 2_000)
  })

  it('moves nothing and fails no load while each node is restarted', async () => {
    // Who comes back five times as slowly as a process starts here just now is still waited for (10 s on this clock): where two cores are full the clock goes slower.
    const paced = { ...size, nodes: 4, clockTimes: Math.min(2, 2 / await secondsToStart(join(root, 'one'), size)) }
    const at = await placed(root, paced)
    await using _ = at.swarm
    await rollingRestart(at, paced)
  })
})
