import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB } from '../../src/base/index.ts'
import type { LoadOptions, OpenModel, ShoalNode } from '../../src/node/types.ts'
import { Cluster } from '../support/cluster.ts'
import { temporaryDirectory } from '../support/files.ts'
import { until } from '../support/until.ts'

const BYTES = 24 * MiB
const ON_DEMAND: LoadOptions = { onDemand: true, reserve: false }

describe('a model that is open on demand', () => {
  const content = randomBytes(BYTES)
  let cluster: Cluster
  const opened: OpenModel[] = []

  beforeEach(() => { cluster = new Cluster({ settings: { transfer: { stallTimeoutMs: 1_500 } } }) })
  afterEach(async () => {
    for (const model of opened.splice(0)) model.close()
    await cluster.teardown()
  })

  /** A node that has the weights, and one that joins it. */
  async function pair (weights = content): Promise<{ cid: string, seeder: ShoalNode, node: ShoalNode }> {
    await using directory = await temporaryDirectory('on-demand')
    const [seeder, node] = await cluster.spawn(2) as [ShoalNode, ShoalNode]
    await mkdir(directory.path, { recursive: true })
    await writeFile(join(directory.path, 'w.bin'), weights)
    const { cid } = await seeder.add(directory.path)
    await cluster.connect()
    return { cid, seeder, node }
  }

  async function opening (node: ShoalNode, cid: string): Promise<OpenModel> {
    const model = await node.open(cid, ON_DEMAND)
    opened.push(model)
    return model
  }

  const here = (node: ShoalNode, cid: string): number => node.models().find(model => model.cid === cid)?.presentBytes ?? 0

  it('takes from another version here what they have in common, whether or not anybody else has it', async () => {
    const next = Buffer.from(content)
    next[0] = (next[0] ?? 0) ^ 1
    const { cid, seeder, node } = await pair(next)
    await using directory = await temporaryDirectory('on-demand-before')
    await mkdir(directory.path, { recursive: true })
    await writeFile(join(directory.path, 'w.bin'), content)
    await node.add(directory.path)
    const model = await opening(node, cid)
    const first = await model.read('w.bin', 0, 10)
    assert.deepEqual(Buffer.from(first), next.subarray(0, 10))
    await cluster.kill(seeder)
    assert.deepEqual(Buffer.from(await model.read('w.bin', 5 * MiB, 9 * MiB)), next.subarray(5 * MiB, 14 * MiB))
    assert.ok(here(node, cid) >= 13 * MiB && here(node, cid) <= 20 * MiB, `${here(node, cid)} bytes are here`)
  })

  it('stays open when a read that nobody can serve was given up, and tells only who waits for it', async () => {
    const { cid, seeder, node } = await pair()
    const [one, other] = [await opening(node, cid), await opening(node, cid)]
    assert.equal((await other.read('w.bin', 0, 100)).length, 100)
    await cluster.kill(seeder)
    const stop = new AbortController()
    const given = one.read('w.bin', 9 * MiB, 100, { signal: stop.signal })
    const waiting = one.read('w.bin', 17 * MiB, 100)
    setTimeout(() => { stop.abort() }, 200)
    await assert.rejects(given, { name: 'AbortError' })
    await assert.rejects(waiting, { name: 'NoProviderError', message: /nobody has the rest/ })
    let ended = false
    void other.done.then(() => { ended = true }, () => { ended = true })
    await new Promise(resolve => { setTimeout(resolve, 2_500) })
    assert.deepEqual(Buffer.from(await other.read('w.bin', 50, 50)), content.subarray(50, 100))
    assert.equal(ended, false)
    // And a holder that comes late serves it.
    const [late] = await cluster.spawn(1) as [ShoalNode]
    await using directory = await temporaryDirectory('on-demand-late')
    await mkdir(directory.path, { recursive: true })
    await writeFile(join(directory.path, 'w.bin'), content)
    await late.add(directory.path)
    const address = late.multiaddrs()[0] ?? assert.fail()
    await node.connect(address)
    await until('it is served', async () => await other.read('w.bin', 17 * MiB, 100).then(bytes => bytes.length === 100, () => false))
  })
})
