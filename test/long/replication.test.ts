import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MiB, seededRandom } from '../../src/base/index.ts'
import { JOIN_LABELS, QUICK, joins, killRounds, losesLedger, pauses, placed, rollingRestart, rot, settingsOf, type Size } from '../support/replication-cases.ts'
import { Swarm } from '../support/swarm.ts'

const SEED = Number(process.env.SHOAL_SEED ?? Date.now() % 1_000_000)

/** `npm run test:long`. SHOAL_SEED replays it. */
describe(`replication, nine processes and 512 MiB (seed ${SEED})`, function () {
  this.timeout(30 * 60_000)
  // Silence and grace as in a data centre where that is what is shown; elsewhere seconds.
  const size: Size = { nodes: 9, modelBytes: 512 * MiB, rounds: 5, patienceMs: 180_000, replication: { ...QUICK, suspectMs: 15_000, downMs: 20_000, graceTwoCopiesMs: 5_000, graceDefaultMs: 60_000 } }
  const log = (line: string): void => { process.stdout.write(`      ${line}\n`) }
  let root = ''
  beforeEach(async () => { root = await mkdtemp(join(tmpdir(), 'shoal-long-')) })
  afterEach(async () => { await rm(root, { recursive: true, force: true }) })

  it('outlives two holders killed at once, and two more, five times over', async () => {
    const at = await placed(root, size)
    await using _ = at.swarm
    await killRounds(at, size, seededRandom(SEED), log)
  })

  it('waits for a holder that stands still for ten seconds, and replaces one that does for longer than the grace', async () => {
    const at = await placed(root, size)
    await using _ = at.swarm
    await pauses(at, size, 10_000)
  })

  it('moves nothing and fails no load while all nine are restarted', async () => {
    const at = await placed(root, size)
    await using _ = at.swarm
    await rollingRestart(at, size)
  })

  it('finds and heals rot in a thousand places while loads run, and serves none', async () => {
    const rotten: Size = { ...size, nodes: 5, replication: { ...size.replication, scrubPeriodMs: 30_000 } }
    const at = await placed(root, rotten)
    await using _ = at.swarm
    await rot(at, rotten, root, seededRandom(SEED + 1), 1_000)
  })
  it('moves a copy of each shard to a node that joins in a zone of its own, and is never below target, nor when that one loses its ledger', async () => {
    // Who was told no asks again after a minute or two, then after twice that: on a clock four times as fast.
    const joined: Size = {
      ...size, nodes: 3, modelBytes: 24 * MiB, patienceMs: 300_000, clockTimes: 4,
      replication: { ...QUICK, suspectMs: 12_000, downMs: 16_000, graceTwoCopiesMs: 2_000, graceDefaultMs: 10_000, brakeWindowMs: 10_000 }
    }
    const at = await placed(root, joined, new Swarm(root, settingsOf(joined), { labels: JOIN_LABELS, clockTimes: 4 }))
    await using _ = at.swarm
    await joins(at, joined)
    await losesLedger(at, joined, root, 3)
  })
})
