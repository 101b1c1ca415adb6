import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import { encode } from '@ipld/dag-cbor'
import type { CID } from 'multiformats/cid'
import { KiB, MANIFEST_FILES_MAX, seededRandom } from '../../../src/base/index.ts'
import { hashBlock, hashMetadata } from '../../../src/model/index.ts'
import { contentOf, sampleOf } from '../../compliance/store-fixtures.ts'
import { Cluster } from '../../support/cluster.ts'
import { temporaryDirectory } from '../../support/files.ts'
import { HostilePeer } from '../../support/hostile-peer.ts'

const content = contentOf(seededRandom(70), 64 * KiB)
const block = hashBlock(content)

interface Raw { cid: CID, bytes: Uint8Array }
function named (bytes: Uint8Array): Raw { return { cid: hashMetadata(bytes), bytes } }

const fields = { version: 1, size: content.length, sha256: new Uint8Array(32), chunker: 'fixed', blocks: [block], sizes: [content.length] }
const index = named(encode(fields))
const file = (path: unknown, size: unknown = content.length, of: CID = index.cid): unknown => ({ path, size, index: of })
const manifest = (...files: unknown[]): Raw => named(encode({ version: 1, files }))
const withIndex = (change: Record<string, unknown>, size = content.length): { indexes: Raw[], manifest: Raw } => {
  const changed = named(encode({ ...fields, ...change }))
  return { indexes: [changed], manifest: manifest(file('a', size, changed.cid)) }
}

/** Published by somebody who means harm: every byte matches its CID. */
const models: Array<{ what: string, manifest: Raw, indexes?: Raw[], error: string }> = [
  ...['../escape', 'a/../../escape', '..', '/etc/cron.d/x', 'a\\b', 'a\0b', './a', 'a//b', 'a/', '', 'größe', 'a b', `${'a/'.repeat(17)}a`, 'x'.repeat(256)].map(path => (
    { what: `the path ${JSON.stringify(path).slice(0, 40)}`, manifest: manifest(file(path)), error: 'InvalidManifestError' })),
  { what: 'paths that differ in case only', manifest: manifest(file('Model.bin'), file('model.bin')), error: 'InvalidManifestError' },
  { what: 'the same path twice', manifest: manifest(file('a'), file('a')), error: 'InvalidManifestError' },
  { what: 'a file that is also a directory', manifest: manifest(file('a'), file('a/b')), error: 'InvalidManifestError' },
  { what: 'paths out of order', manifest: manifest(file('b'), file('a')), error: 'InvalidManifestError' },
  { what: 'no file', manifest: manifest(), error: 'InvalidManifestError' },
  { what: 'too many files', manifest: manifest(...Array.from({ length: MANIFEST_FILES_MAX + 1 }, (_, i) => file(`f${String(i).padStart(6, '0')}`))), error: 'InvalidManifestError' },
  { what: 'a negative size', manifest: manifest(file('a', -1)), error: 'InvalidManifestError' },
  { what: 'a size with a fraction', manifest: manifest(file('a', 1.5)), error: 'InvalidManifestError' },
  { what: 'another version', manifest: named(encode({ version: 2, files: [file('a')] })), error: 'InvalidManifestError' },
  { what: 'an unknown key', manifest: named(encode({ version: 1, files: [file('a')], more: 1 })), error: 'InvalidManifestError' },
  { what: 'an index that is a block', manifest: manifest(file('a', 1, block)), error: 'InvalidManifestError' },
  { what: 'bytes after its end', manifest: named(Buffer.concat([manifest(file('a')).bytes, Buffer.of(0)])), error: 'InvalidManifestError' },
  { what: 'garbage', manifest: named(Uint8Array.from([0x9f, 0xff, 0, 1, 2])), error: 'InvalidManifestError' },
  { what: 'nested garbage', manifest: named(new Uint8Array(100_000).fill(0x81)), error: 'InvalidManifestError' },
  { what: 'its version in two bytes', manifest: named(Buffer.concat([manifest(file('a')).bytes.subarray(0, -1), Buffer.of(0x18, 0x01)])), error: 'InvalidManifestError' },
  { what: 'an index of another size', manifest: manifest(file('a', content.length + 1)), error: 'InvalidManifestError' },
  { what: 'an index that is a manifest', indexes: [manifest(file('a'))], manifest: manifest(file('b', content.length, manifest(file('a')).cid)), error: 'InvalidFileIndexError' },
  { what: 'blocks that do not add up', ...withIndex({ size: content.length + 1 }, content.length + 1), error: 'InvalidFileIndexError' },
  { what: 'a block of 0 bytes', ...withIndex({ blocks: [block, block], sizes: [content.length, 0] }), error: 'InvalidFileIndexError' },
  { what: 'a block beyond 4 MiB', ...withIndex({ size: 5 << 20, sizes: [5 << 20] }, 5 << 20), error: 'InvalidFileIndexError' },
  { what: 'more sizes than blocks', ...withIndex({ sizes: [content.length, 1], size: content.length + 1 }, content.length + 1), error: 'InvalidFileIndexError' },
  { what: 'a short sha-256', ...withIndex({ sha256: new Uint8Array(31) }), error: 'InvalidFileIndexError' },
  { what: 'a chunker that is no name', ...withIndex({ chunker: '../x' }), error: 'InvalidFileIndexError' },
  { what: 'a block that is metadata', ...withIndex({ blocks: [index.cid] }), error: 'InvalidFileIndexError' }
]

describe('hostile: a publisher', function () {
  this.timeout(30_000)

  it('is refused at the edge: nothing listed, nothing on disk, nobody banned', async () => {
    await using cluster = new Cluster({ transport: 'tcp' })
    await using outside = await temporaryDirectory('outside')
    await using publisher = await HostilePeer.start({ swarmKey: cluster.swarmKey, transport: 'tcp' })
    const [node] = await cluster.spawn(1, () => ({ dataDirectory: `${outside.path}/data` }))
    assert.ok(node !== undefined)
    await node.connect(publisher.address)
    const before = await readdir(outside.path)
    const tree = async (): Promise<string[]> => (await readdir(`${outside.path}/data`, { recursive: true })).filter(name => /^(files|models)\//.test(name)).sort()
    publisher.giveBytes(index.cid, index.bytes)
    publisher.giveBytes(block, content)
    for (const { what, manifest: bad, indexes = [], error } of models) {
      for (const { cid, bytes } of [bad, ...indexes]) publisher.giveBytes(cid, bytes)
      const started = performance.now()
      await assert.rejects(node.load(bad.cid.toString(), { providerTimeoutMs: 4_000 }), thrown => {
        assert.ok(thrown instanceof Error)
        assert.equal(thrown.name, error, `${what}: ${thrown.message}`)
        assert.equal((thrown as Error & { kind?: string }).kind, 'verification', what)
        return true
      }, what)
      assert.ok(performance.now() - started < 2_000, `${what}: took long`)
    }
    assert.deepEqual(node.models(), [])
    assert.deepEqual(await tree(), [])
    assert.deepEqual(await readdir(outside.path), before)
    assert.ok(node.peers().every(peer => !peer.banned), 'whoever passes on what matches its CID is not to blame')
    publisher.giveBytes(manifest(file('a')).cid, manifest(file('a')).bytes)
    assert.equal((await node.load(manifest(file('a')).cid.toString())).bytes, content.length)
  })

  it('cannot make a node take in metadata beyond the limit', async () => {
    await using cluster = new Cluster()
    await using publisher = await HostilePeer.start({ swarmKey: cluster.swarmKey })
    const [node] = await cluster.spawn(1)
    assert.ok(node !== undefined)
    await node.connect(publisher.address)
    const huge = named(new Uint8Array((16 << 20) + 1).fill(1))
    publisher.giveBytes(huge.cid, huge.bytes)
    await assert.rejects(node.load(huge.cid.toString(), { providerTimeoutMs: 500 }), { name: 'NoProviderError' })
  })

  describe('that gives a true block another size', () => {
    const sample = sampleOf([{ path: 'good.bin', content, sizes: [content.length] }])

    for (const [what, size] of [['fewer', content.length - 1], ['more', content.length + 1]] as const) {
      it(`${what} bytes: the load says so, and no honest peer is banned`, async () => {
        await using cluster = new Cluster()
        await using publisher = await HostilePeer.start({ swarmKey: cluster.swarmKey })
        await using other = await HostilePeer.start({ swarmKey: cluster.swarmKey })
        const [node] = await cluster.spawn(1)
        assert.ok(node !== undefined)
        const { manifest: bad, indexes } = withIndex({ size, sizes: [size] }, size)
        for (const peer of [publisher, other]) {
          for (const { cid, bytes } of [bad, ...indexes]) peer.giveBytes(cid, bytes)
          peer.give(sample)
          await node.connect(peer.address)
        }
        await assert.rejects(node.load(bad.cid.toString()), thrown => {
          assert.ok(thrown instanceof Error)
          assert.equal(thrown.name, 'InvalidFileIndexError', thrown.message)
          assert.match(thrown.message, new RegExp(`${size} bytes, and it has ${content.length}`))
          return true
        })
        assert.ok(node.peers().every(peer => !peer.banned))
        await node.remove(bad.cid.toString())
        assert.equal((await node.load(sample.cid)).bytes, content.length)
        assert.deepEqual((await node.verify()).bad, [])
      })

      it(`${what} bytes: the good copy that is here already stays`, async () => {
        await using cluster = new Cluster({ transport: 'tcp' })
        await using publisher = await HostilePeer.start({ swarmKey: cluster.swarmKey, transport: 'tcp' })
        const [node] = await cluster.spawn(1)
        assert.ok(node !== undefined)
        const { manifest: bad, indexes } = withIndex({ size, sizes: [size] }, size)
        for (const { cid, bytes } of [bad, ...indexes]) publisher.giveBytes(cid, bytes)
        publisher.give(sample)
        await node.connect(publisher.address)
        await node.load(sample.cid)
        await assert.rejects(node.load(bad.cid.toString()), { name: 'InvalidFileIndexError' })
        assert.equal(node.models().find(({ cid }) => cid === sample.cid)?.complete, true)
        assert.equal((await node.status()).blocksLost, 0)
        assert.deepEqual((await node.verify()).bad, [])
      })
    }
  })
})
