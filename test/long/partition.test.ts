import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { MiB } from '../../src/base/index.ts'
import { writeSyntheticModel } from '../../scripts/lib/synthetic-model.ts'
import { MAX, QUICK, TARGET, placed, settingsOf, type Size } from '../support/replication-cases.ts'
import { Swarm, type Place } from '../support/swarm.ts'

const NODES = 6
const NAME = `shoal${process.pid}`

/** Each node in a network namespace of its own, on one of two bridges that a cable joins. */
class Cabled implements Disposable {
  readonly places: Place[] = []

  constructor () {
    for (const side of [0, 1]) {
      ip('link', 'add', `${NAME}b${side}`, 'type', 'bridge')
      ip('link', 'set', `${NAME}b${side}`, 'up')
    }
    ip('link', 'add', `${NAME}c0`, 'type', 'veth', 'peer', 'name', `${NAME}c1`)
    for (const side of [0, 1]) {
      ip('link', 'set', `${NAME}c${side}`, 'master', `${NAME}b${side}`)
      ip('link', 'set', `${NAME}c${side}`, 'up')
    }
    for (let node = 0; node < NODES; node++) {
      const space = `${NAME}n${node}`
      const address = `10.213.${process.pid % 250}.${node + 1}`
      ip('netns', 'add', space)
      ip('link', 'add', `${NAME}v${node}`, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', space)
      ip('link', 'set', `${NAME}v${node}`, 'master', `${NAME}b${node % 2}`)
      ip('link', 'set', `${NAME}v${node}`, 'up')
      ip('-n', space, 'addr', 'add', `${address}/24`, 'dev', 'eth0')
      ip('-n', space, 'link', 'set', 'eth0', 'up')
      ip('-n', space, 'link', 'set', 'lo', 'up')
      this.places.push({ address, prefix: ['ip', 'netns', 'exec', space] })
    }
  }

  cut (): void { ip('link', 'set', `${NAME}c0`, 'down') }
  heal (): void { ip('link', 'set', `${NAME}c0`, 'up') }

  [Symbol.dispose] (): void {
    for (let node = 0; node < NODES; node++) tryIp('netns', 'del', `${NAME}n${node}`)
    tryIp('link', 'del', `${NAME}c0`)
    for (const side of [0, 1]) tryIp('link', 'del', `${NAME}b${side}`)
  }
}

function ip (...args: string[]): void { execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] }) }

function tryIp (...args: string[]): void {
  try { ip(...args) } catch { /* it was never made, or went with its namespace */ }
}

/** Only root makes network namespaces, and not in every container. */
function whyNot (): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root'
  try {
    ip('netns', 'add', `${NAME}try`)
    ip('link', 'add', `${NAME}t0`, 'type', 'bridge')
    return undefined
  } catch (error) {
    return `cannot make network namespaces: ${(error as Error).message.split('\n')[0]}`
  } finally {
    tryIp('netns', 'del', `${NAME}try`)
    tryIp('link', 'del', `${NAME}t0`)
  }
}

const reason = whyNot()

describe('replication over a cut cable', function () {
  this.timeout(10 * 60_000)
  const size: Size = { nodes: NODES, modelBytes: 64 * MiB, rounds: 1, patienceMs: 60_000, replication: { ...QUICK, graceTwoCopiesMs: 5_000, brakeWindowMs: 20_000, brakeMaxMs: 120_000 } }

  const name = 'keeps serving on both sides, lets go of nothing, and counts right within a minute of healing'
  if (reason !== undefined) {
    it.skip(`${name} (${reason})`)
    return
  }

  it(name, async () => {
    const root = await mkdtemp(join(tmpdir(), 'shoal-partition-'))
    try {
      using cabled = new Cabled()
      const { swarm, cid } = await placed(root, size, new Swarm(root, settingsOf(size), { places: cabled.places, labels: cabled.places.map((_place, node) => ({ zone: `side-${node % 2}` })) }))
      await using _ = swarm
      for (const a of swarm.live) for (const b of swarm.live) if (a !== b) await a.connect(b.multiaddrs[0] ?? '')
      // A side on which nobody has some shard could not load it; the labels spread it over both.
      const before = await swarm.copies(cid)
      cabled.cut()
      // While it is cut: a model that each side has goes on being loaded there, and one is added and pinned on one side.
      const sides = [0, 1].map(side => swarm.live.filter((_node, number) => number % 2 === side))
      const second = join(root, 'second')
      await writeSyntheticModel(second, { bytes: 8 * MiB, seed: 9 })
      const added = await swarm.at(0).add(second, false, 2)
      for (const side of sides) {
        const reader = side.at(-1)
        assert(reader !== undefined)
        const loaded = await reader.load(cid)
        assert(loaded.bytes > 0)
      }
      await wait(30_000)
      const during = await swarm.copies(cid)
      during.forEach((copies, shard) => { assert(copies >= (before[shard] ?? 0), `shard ${shard} went from ${before[shard]} to ${copies} copies while the cable was cut`) })
      assert.equal((await swarm.replication()).reduce((sum, { counters }) => sum + counters.released, 0), 0)
      cabled.heal()
      await swarm.untilReplicated(cid, TARGET, 60_000)
      await swarm.untilReplicated(added.cid, 2, 60_000)
      const after = await swarm.copies(cid)
      assert(after.every(copies => copies >= TARGET && copies <= MAX + 1), `copies after healing: ${after.join(' ')}`)
      assert.deepEqual(await swarm.verify(), [])
    } finally {
      await rm(root, { recursive: true, force: true })
    }
  })
})
