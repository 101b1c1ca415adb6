import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { link, mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB, silentLogger, systemClock } from '../../../src/base/index.ts'
import type { ShoalNode } from '../../../src/node/types.ts'
import { Leftovers, keyOf } from '../../../src/origin/index.ts'
import type { Cluster } from '../../support/cluster.ts'
import { temporaryDirectory } from '../../support/files.ts'
import { Hub } from '../../support/hub.ts'
import { until } from '../../support/until.ts'
import { hubCluster } from './hub-cluster.ts'

const FILES = { 'config.json': Buffer.from('{}'), 'model.safetensors': randomBytes(2 * MiB) }
const HOUR_MS = 3_600_000

describe('origin: what a fetch that broke off has left', function () {
  this.timeout(30_000)
  let hub: Hub
  let cluster: Cluster
  /** How far the node's clock is ahead of the disk's. */
  let aheadMs = 0
  const clock = { ...systemClock, now: () => systemClock.now() + aheadMs }
  const find = async (node: ShoalNode, signal = AbortSignal.timeout(20_000)): Promise<string> => {
    const model = await node.origin?.resolve('a/b', 'main', { token: undefined })
    assert.ok(model !== undefined)
    return await model.find(signal)
  }
  const halfWay = async (): Promise<void> => {
    await until('some of it came', () => hub.fileBytes >= MiB)
  }

  beforeEach(async () => {
    aheadMs = 0
    hub = await Hub.start()
    hub.push('a/b', FILES)
    cluster = hubCluster(hub, { clock })
  })
  afterEach(async () => {
    await cluster.teardown()
    await hub.stop()
  })

  it('is counted and freed by gc when nobody went on with it for an hour, and then comes anew', async () => {
    const [first] = await cluster.spawn(1) as [ShoalNode]
    const dataDirectory = cluster.directory(first)
    hub.faults.bytesPerSecond = MiB
    const cutOff = assert.rejects(find(first), { name: 'NodeStoppedError' })
    await halfWay()
    await cluster.kill(first)
    await cutOff
    hub.faults.bytesPerSecond = 100 * MiB
    const [node] = await cluster.spawn(1, () => ({ dataDirectory })) as [ShoalNode]
    const nothing = { removed: [], freedBytes: 0, leftoverBytes: 0 }
    assert.deepEqual(await node.gc(), nothing)
    aheadMs = HOUR_MS + 1_000
    const dry = await node.gc({ dryRun: true })
    assert.ok(dry.leftoverBytes >= MiB / 2 && dry.leftoverBytes <= 3 * MiB, `${dry.leftoverBytes} bytes`)
    assert.deepEqual(await node.gc(), dry)
    assert.deepEqual([await node.gc(), await readdir(join(dataDirectory, 'origin'))], [nothing, []])
    await find(node)
    assert.ok(node.models()[0]?.complete)
  })

  it('stays while a fetch runs, however old it looks', async () => {
    const [node] = await cluster.spawn(1) as [ShoalNode]
    hub.faults.bytesPerSecond = 2 * MiB
    const finding = find(node)
    await halfWay()
    aheadMs = 2 * HOUR_MS
    assert.equal((await node.gc()).leftoverBytes, 0)
    assert.equal((await readdir(join(cluster.directory(node), 'origin'))).length, 1)
    await finding
    assert.ok(node.models()[0]?.complete)
    assert.ok(hub.fileBytes <= 1.1 * 2 * MiB, `${hub.fileBytes} bytes left the Hub`)
  })

  it('is freed by a node that has no upstream any more', async () => {
    const [node] = await cluster.spawn(1, () => ({ settings: { origin: { upstream: undefined } } })) as [ShoalNode]
    assert.equal(node.origin, undefined)
    const parts = join(cluster.directory(node), 'origin', keyOf({ repo: 'a/b', commit: '0'.repeat(40) }), 'parts')
    await mkdir(parts, { recursive: true })
    await writeFile(join(parts, 'x'), Buffer.alloc(MiB, 1))
    await link(join(parts, 'x'), join(parts, 'y')) // one file with two names is there once
    aheadMs = HOUR_MS + 1_000
    const { leftoverBytes } = await node.gc({ dryRun: true })
    assert.ok(leftoverBytes >= MiB && leftoverBytes < 1.5 * MiB, `${leftoverBytes} bytes`)
    assert.equal((await node.gc()).leftoverBytes, leftoverBytes)
    assert.deepEqual(await readdir(join(cluster.directory(node), 'origin')), [])
  })

  it('is not begun on while it is being removed', async () => {
    await using root = await temporaryDirectory('leftovers')
    const leftovers = new Leftovers({ clock, logger: silentLogger, discard: async () => true }, root.path)
    for (let i = 0; i < 500; i++) {
      await mkdir(join(root.path, 'key', `d${i}`), { recursive: true })
      await writeFile(join(root.path, 'key', `d${i}`, 'x'), 'x')
    }
    aheadMs = 2 * HOUR_MS
    let freed: number | undefined
    const collecting = leftovers.gc(false).then(bytes => { freed = bytes })
    let met = 0
    while (freed === undefined) {
      await leftovers.using('key', async () => {
        const before = (await readdir(join(root.path, 'key')).catch(() => [])).length
        await new Promise(resolve => setTimeout(resolve, 1))
        // Nothing of it goes while it is used: all is there, or nothing is left.
        assert.equal((await readdir(join(root.path, 'key')).catch(() => [])).length, before)
        met++
      })
      await new Promise(resolve => setImmediate(resolve))
    }
    await collecting
    assert.ok(met > 0)
  })
})
