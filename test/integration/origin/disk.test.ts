import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { execFileSync } from 'node:child_process'
import { readdir, rm, statfs, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { MiB } from '../../../src/base/index.ts'
import type { ShoalNode } from '../../../src/node/types.ts'
import type { Cluster } from '../../support/cluster.ts'
import { temporaryDirectory } from '../../support/files.ts'
import type { Hub } from '../../support/hub.ts'
import { until } from '../../support/until.ts'
import { eachWithHub } from './hub-cluster.ts'

const SHARD = 3 * MiB
const FILES = Object.fromEntries([['config.json', Buffer.from('{}')], ...Array.from({ length: 4 }, (_, at) => [`model-${at}.safetensors`, randomBytes(SHARD)] as const)])
const TOTAL = Object.values(FILES).reduce((sum, { length }) => sum + length, 0)

describe('origin: a disk with room for one copy', function () {
  this.timeout(30_000)
  let hub: Hub
  let cluster: Cluster
  let signal: AbortSignal

  eachWithHub(20_000, made => { ({ hub, cluster, signal } = made) })

  const find = async (node: ShoalNode): Promise<string> => {
    const model = await node.origin?.resolve('a/b', 'main', { token: undefined })
    assert.ok(model !== undefined)
    return await model.find(signal)
  }

  /** On a volume of so many MiB, which takes root. */
  const onVolume = async (mebibytes: number, work: (directory: string) => Promise<void>): Promise<void> => {
    await using directory = await temporaryDirectory('origin-disk')
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${mebibytes}m`, 'shoal-test', directory.path])
    try {
      await work(directory.path)
    } finally {
      execFileSync('umount', ['-l', directory.path])
    }
  }

  /** Leaves so many bytes free there, until the file is removed. */
  const fill = async (directory: string, freeBytes: number): Promise<string> => {
    const { bavail, bsize } = await statfs(directory)
    const path = join(directory, 'somebody-else')
    await writeFile(path, Buffer.alloc(bavail * bsize - freeBytes))
    return path
  }

  const spawn = async (directory: string): Promise<ShoalNode> => {
    const [node] = await cluster.spawn(1, () => ({ dataDirectory: directory }))
    assert.ok(node !== undefined)
    return node
  }

  before(function () { if (process.getuid?.() !== 0) this.skip() })

  for (const [what, files] of [['four shards', FILES], ['one file', { 'model.gguf': randomBytes(TOTAL) }]] as const) {
    it(`${what}: they come once, and are published without a second copy`, async () => {
      await onVolume(40, async directory => {
        const node = await spawn(directory)
        hub.push('a/b', files)
        await fill(directory, TOTAL + 2 * MiB)
        const cid = await find(node)
        assert.equal(hub.fileBytes, TOTAL)
        assert.equal(node.models().find(model => model.cid === cid)?.complete, true)
        assert.deepEqual((await node.verify(cid)).bad, [])
        assert.deepEqual(await readdir(join(directory, 'origin')), [])
        await cluster.kill(node)
      })
    })
  }

  it('what came before a restart needs no room once more, and is not lost when there is none', async () => {
    await onVolume(40, async directory => {
      hub.push('a/b', FILES)
      hub.faults.bytesPerSecond = 6 * MiB
      const killed = await spawn(directory)
      find(killed).catch(() => undefined)
      await until('most of it came', () => hub.fileBytes > TOTAL - 2 * MiB)
      await cluster.kill(killed)
      Object.assign(hub.faults, { bytesPerSecond: undefined })
      const came = hub.fileBytes
      const other = await fill(directory, MiB / 2)
      const node = await spawn(directory)
      await assert.rejects(find(node), { name: 'OutOfSpaceError' })
      assert.equal((await readdir(join(directory, 'origin'))).length, 1)
      await rm(other)
      await fill(directory, TOTAL - came + 2 * MiB)
      // The same is said for two seconds to whoever asks.
      await until('it works', async () => await find(node).then(() => true, error => { assert.equal((error as Error).name, 'OutOfSpaceError'); return false }))
      assert.ok(hub.fileBytes < TOTAL + MiB, `${hub.fileBytes} bytes left the Hub`)
      await cluster.kill(node)
    })
  })
})
