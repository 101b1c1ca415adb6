import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chmod, lstat, mkdir, open, readFile, readdir, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { seededRandom, systemClock, type Clock } from '../../../src/base/index.ts'
import type { ModelStore } from '../../../src/storage/index.ts'
import {
  contentOf, fileOf, fileStore, importAll, load, readBlock, sampleOf, smallModel, temporaryDirectory, writeBlock, type Sample
} from '../../compliance/store-fixtures.ts'

const run = promisify(execFile)
const NOBODY = 65_534

describe('files: what stands on the disk', () => {
  let directory: AsyncDisposable & { path: string }
  let store: ModelStore

  beforeEach(async () => {
    directory = await temporaryDirectory()
    store = fileStore(directory.path)
    await store.start()
  })
  afterEach(async () => {
    await store.stop()
    await directory[Symbol.asyncDispose]()
  })

  const at = (...names: string[]): string => join(directory.path, ...names)
  const reopen = async (between: () => Promise<void> = async () => undefined, clock: Clock = systemClock): Promise<void> => {
    await store.stop()
    await between()
    store = fileStore(directory.path, { clock })
    await store.start()
  }
  const twoFiles = (seed: number): Sample => {
    const random = seededRandom(seed)
    return sampleOf([{ path: 'config.json', content: contentOf(random, 300), sizes: [300] }, { path: 'weights/a.bin', content: contentOf(random, 50_000), sizes: [20_000, 13_000, 17_000] }])
  }
  const content = (sample: Sample, position = 0): Buffer => sample.files[position]?.content ?? Buffer.alloc(0)

  describe('a part that is evicted', () => {
    it('frees its room, leaves who has the file open what he had, and stays gone after a restart', async () => {
      const random = seededRandom(70)
      const sizes = [1_000_000, 1_000_000, 1_000_000]
      const sample = sampleOf([{ path: 'a.bin', content: contentOf(random, 3_000_000), sizes }])
      await load(store, sample)
      const linked = at('models', sample.cid, 'a.bin')
      const before = (await stat(linked)).blocks
      await using reader = await open(linked, 'r')
      const file = fileOf(store, sample)
      store.spareParts(sample.cid, [{ file, first: 1, count: 1 }])
      assert.equal(await store.evictParts([{ file, first: 1, count: 1 }], 1), 1_000_000)
      const old = Buffer.alloc(3_000_000)
      await reader.read(old, 0, old.length, 0)
      assert.ok(old.equals(content(sample)), 'a reader of the old file sees all of it')
      await assert.rejects(lstat(linked), { code: 'ENOENT' })
      assert.ok((await stat(at('files', file.key))).blocks < before * 0.8)
      assert.deepEqual((await readdir(at('tmp'))).filter(name => name.startsWith('import')), [])
      await reopen()
      const again = fileOf(store, sample)
      assert.deepEqual([...again.present], [0, 2])
      assert.deepEqual((await store.verify(undefined)).bad, [])
      await load(store, sample)
      assert.ok((await readFile(linked)).equals(content(sample)))
    })

    it('waits for nobody who writes: then it stays for now', async () => {
      const sample = twoFiles(71)
      await store.putModel(sample.model)
      const file = fileOf(store, sample, 1)
      await writeBlock(store, file, content(sample, 1), 0)
      await store.flush()
      store.spareParts(sample.cid, [{ file, first: 0, count: 1 }])
      const writing = writeBlock(store, file, content(sample, 1), 1)
      assert.equal(await store.evictParts([{ file, first: 0, count: 1 }], 1), 0)
      await writing
      await store.flush()
      const [evicted] = await Promise.all([store.evictParts([{ file, first: 0, count: 1 }], 1), writeBlock(store, file, content(sample, 1), 2)])
      await store.flush()
      assert.deepEqual([...file.present], evicted > 0 ? [1, 2] : [0, 1, 2])
      assert.deepEqual((await store.verify(undefined)).bad, [])
    })
  })

  describe('layout', () => {
    it('a complete file is the file, read-only, under its path in each model that has it', async () => {
      const sample = twoFiles(1)
      await store.putModel(sample.model)
      const file = fileOf(store, sample, 1)
      assert.equal((await stat(at('files', file.key))).size, 50_000)
      await assert.rejects(lstat(at('models', sample.cid, 'weights/a.bin')), { code: 'ENOENT' })
      let linked: Promise<Buffer> | undefined
      store.events.on('blocks:present', ({ file: { present, key } }) => { if (key === file.key && present.full) linked = readFile(at('models', sample.cid, 'weights/a.bin')) })
      await load(store, sample)
      assert.ok((await linked)?.equals(content(sample, 1)), 'the link is there when the last block is told')
      const { ino, mode, nlink } = await stat(at('models', sample.cid, 'weights/a.bin'))
      assert.equal(ino, (await stat(at('files', file.key))).ino)
      assert.equal(mode & 0o777, 0o444)
      assert.equal(nlink, 2)
      assert.equal(store.model(sample.cid)?.directory, at('models', sample.cid))
      assert.equal(file.path, at('files', file.key))
    })

    it('a partial file is sparse', async () => {
      const size = 64 * 1024 * 1024
      const big = sampleOf([{ path: 'big', content: Buffer.alloc(size), sizes: Array.from({ length: 16 }, () => size / 16) }])
      await store.putModel(big.model)
      await writeBlock(store, fileOf(store, big), content(big), 7)
      await store.flush()
      const { blocks, size: logical } = await stat(at('files', fileOf(store, big).key))
      assert.equal(logical, size)
      assert.ok(blocks * 512 <= 5 * 1024 * 1024, `${blocks * 512} bytes are allocated`)
    })

    it('removing leaves nothing, and keeps what another model shares', async () => {
      const one = twoFiles(2)
      const two = sampleOf([{ path: 'again.bin', content: content(one, 1), sizes: [20_000, 13_000, 17_000] }])
      await load(store, one)
      await store.putModel(two.model)
      await store.removeModel(one.cid)
      assert.ok((await readFile(at('models', two.cid, 'again.bin'))).equals(content(one, 1)))
      await store.removeModel(two.cid)
      for (const name of ['files', 'models', 'meta', 'tmp']) assert.deepEqual(await readdir(at(name)), [], name)
    })

    it('replaces what stands in the way of a link', async () => {
      const sample = twoFiles(3)
      await mkdir(at('models', sample.cid, 'config.json', 'in-the-way'), { recursive: true })
      await load(store, sample)
      assert.ok((await readFile(at('models', sample.cid, 'config.json'))).equals(content(sample)))
    })
  })

  describe('restart', () => {
    it('finds models, blocks and flags as they were', async () => {
      const sample = twoFiles(10)
      const other = smallModel(11)
      await store.putModel(sample.model, { published: true })
      await writeBlock(store, fileOf(store, sample, 1), content(sample, 1), 1)
      await load(store, other)
      await store.setPinned(other.cid, true)
      await reopen()
      const model = store.model(sample.cid)
      assert.equal(model?.published, true)
      assert.equal(store.model(other.cid)?.pinned, true)
      assert.equal(store.model(other.cid)?.complete, true)
      assert.deepEqual([...fileOf(store, sample, 1).present], [1])
      assert.equal(model.presentBytes, 13_000)
      assert.deepEqual(await readBlock(store, fileOf(store, sample, 1), 1), content(sample, 1).subarray(20_000, 33_000))
      await load(store, sample)
      assert.equal(model.complete, true)
    })

    it('makes missing links again, and clears abandoned imports', async () => {
      const sample = twoFiles(12)
      await load(store, sample)
      await store.importFile(2_000_000)
      assert.equal((await readdir(at('tmp'))).length, 1)
      await reopen(async () => { await rm(at('models'), { recursive: true }) })
      assert.ok((await readFile(at('models', sample.cid, 'weights/a.bin'))).equals(content(sample, 1)))
      assert.deepEqual(await readdir(at('tmp')), [])
    })

    it('believes the disk where a file is gone or cut short', async () => {
      const sample = twoFiles(13)
      await load(store, sample)
      const small = fileOf(store, sample, 0)
      const large = fileOf(store, sample, 1)
      await reopen(async () => {
        await rm(at('files', small.key))
        await chmod(at('files', large.key), 0o644)
        await truncate(at('files', large.key), 25_000)
      })
      assert.deepEqual([...fileOf(store, sample, 0).present], [])
      assert.deepEqual([...fileOf(store, sample, 1).present], [0])
      assert.deepEqual((await store.verify(undefined)).bad, [])
      await load(store, sample)
      assert.equal(store.model(sample.cid)?.complete, true)
      assert.ok((await readFile(at('models', sample.cid, 'weights/a.bin'))).equals(content(sample, 1)))
      assert.ok((await readFile(at('models', sample.cid, 'config.json'))).equals(content(sample, 0)))
    })

    it('checks files in place', async () => {
      const sample = twoFiles(14)
      const path = at('user.bin')
      await writeFile(path, content(sample, 1))
      const { size, mtimeMs, ino } = await stat(path)
      const index = sample.model.indexes[1]
      assert.ok(index)
      await store.referenceFile(index, { path, size, mtimeMs, ino })
      await store.putModel(sample.model, { published: true })
      await reopen()
      assert.equal(fileOf(store, sample, 1).inPlace, true)
      assert.equal(fileOf(store, sample, 1).present.full, true)
      await reopen(async () => { await writeFile(path, 'other') })
      assert.equal(fileOf(store, sample, 1).inPlace, false)
      assert.equal(fileOf(store, sample, 1).present.count, 0)
      await load(store, sample)
      assert.equal((await readFile(path, 'utf8')), 'other', 'the user\'s file is never written to')
    })

    it('starts with 48 h on the clock either way', async () => {
      const sample = twoFiles(15)
      await load(store, sample)
      for (const hours of [-48, 48]) {
        await reopen(undefined, { ...systemClock, now: () => Date.now() + hours * 3_600_000 })
        await store.touchModel(sample.cid)
        assert.equal(store.model(sample.cid)?.complete, true)
      }
    })
  })

  describe('one process, one version', () => {
    it('refuses a second store, in this process and in another', async () => {
      const second = fileStore(directory.path)
      await assert.rejects(second.start(), { name: 'StoreLockedError', message: new RegExp(`this process \\(pid ${process.pid}\\)`) })
      const script = `import { fileStore } from ${JSON.stringify(new URL('../../compliance/store-fixtures.ts', import.meta.url).href)}
        await fileStore(${JSON.stringify(directory.path)}).start().catch(error => { console.log(error.name, error.message) })`
      const { stdout } = await run(process.execPath, ['--input-type=module', '-e', script])
      assert.match(stdout, new RegExp(`^StoreLockedError .*pid ${process.pid}`))
      await store.putModel(twoFiles(20).model) // and the first one goes on
      await reopen()
    })

    it('says what is wrong with a directory that it cannot use, and what to do', async () => {
      await store.stop()
      const lock = at('lock')
      await rm(lock)
      await mkdir(lock)
      await assert.rejects(fileStore(directory.path).start(), { name: 'DiskError', message: `cannot lock ${directory.path} by ${lock}: unable to open database file; look at that file and its volume, or give another --data directory` })
      await rm(lock, { recursive: true })
      await writeFile(at('file'), '')
      await assert.rejects(fileStore(at('file')).start(), { name: 'DiskError', message: `${at('file')} is no directory; give another --data directory` })
      await rm(at('version'))
      await mkdir(at('version'))
      await assert.rejects(fileStore(directory.path).start(), { name: 'DiskError', message: /^cannot read .*version: EISDIR.*; mend that, or give another --data directory$/ })
    })

    it('says that this user may not use a directory', async () => {
      await store.stop()
      await chmod(at('version'), 0o600)
      await chmod(directory.path, 0o755)
      const script = `import { fileStore } from ${JSON.stringify(new URL('../../compliance/store-fixtures.ts', import.meta.url).href)}
        import { chmodSync, rmSync } from 'node:fs'
        const start = async () => await fileStore(${JSON.stringify(directory.path)}).start().catch(error => { console.log(error.message) })
        if (process.getuid() === 0) process.seteuid(${NOBODY})
        else chmodSync(${JSON.stringify(at('version'))}, 0)
        await start()
        if (process.getuid() === 0) process.seteuid(0)
        chmodSync(${JSON.stringify(at('version'))}, 0o644)
        rmSync(${JSON.stringify(at('lock'))})
        chmodSync(${JSON.stringify(directory.path)}, 0o555)
        if (process.getuid() === 0) process.setuid(${NOBODY})
        await start()`
      const { stdout } = await run(process.execPath, ['--input-type=module', '-e', script])
      await chmod(directory.path, 0o755)
      const otherwise = 'or give another --data directory'
      assert.deepEqual(stdout.split('\n'), [
        `no permission to read ${at('version')}; run as the user that ${directory.path} belongs to, ${otherwise}`,
        `cannot lock ${directory.path}: this user may not write ${directory.path}; run as the user it belongs to, ${otherwise}`,
        ''
      ])
    })

    it('refuses a directory from a newer version, and touches nothing of it', async () => {
      await store.stop()
      await writeFile(at('version'), '2\n')
      const before = (await readdir(directory.path)).sort()
      await assert.rejects(fileStore(directory.path).start(), { name: 'StoreVersionError' })
      assert.deepEqual((await readdir(directory.path)).sort(), before)
      await writeFile(at('version'), 'garbage')
      await assert.rejects(fileStore(directory.path).start(), { name: 'StoreVersionError' })
    })
  })

  describe('bad blocks', () => {
    it('are found by verify, withdrawn with the links of their file, and repaired in place', async () => {
      const sample = twoFiles(40)
      await load(store, sample)
      const file = fileOf(store, sample, 1)
      await corrupt(at('files', file.key), 20_005)
      const lost: number[] = []
      store.events.on('blocks:lost', ({ blocks }) => { lost.push(...blocks) })
      const { bad } = await store.verify(sample.cid)
      assert.deepEqual(bad.map(({ model, path, block, cid }) => ({ model, path, block, cid })), [{ model: sample.cid, path: 'weights/a.bin', block: 1, cid: file.index.blocks.at(1)?.toString() }])
      assert.deepEqual(lost, [1])
      await assert.rejects(lstat(at('models', sample.cid, 'weights/a.bin')), { code: 'ENOENT' })
      await reopen()
      assert.deepEqual([...fileOf(store, sample, 1).present], [0, 2], 'it stays withdrawn')
      await writeBlock(store, fileOf(store, sample, 1), content(sample, 1), 1)
      await store.flush()
      assert.ok((await readFile(at('models', sample.cid, 'weights/a.bin'))).equals(content(sample, 1)))
      assert.equal((await stat(at('files', file.key))).mode & 0o777, 0o444)
    })

    it('are withdrawn when a read finds the file cut short', async () => {
      const sample = twoFiles(41)
      await load(store, sample)
      const file = fileOf(store, sample, 1)
      await chmod(at('files', file.key), 0o644)
      await truncate(at('files', file.key), 30_000)
      assert.equal(await readBlock(store, file, 1), undefined)
      assert.deepEqual([...file.present], [0, 2])
      await assert.rejects(store.readRange(file, 33_000, 10), { name: 'DiskError' })
      assert.equal(await readBlock(store, file, 2), undefined)
      await load(store, sample)
      assert.ok((await readFile(at('models', sample.cid, 'weights/a.bin'))).equals(content(sample, 1)))
    })

    it('are withdrawn when a read finds the file gone', async () => {
      const sample = twoFiles(43)
      await load(store, sample)
      await reopen() // a descriptor that is open would still see the deleted file
      const file = fileOf(store, sample, 1)
      await rm(at('files', file.key))
      assert.equal(await readBlock(store, file, 1), undefined)
      assert.equal(file.present.count, 0)
      await load(store, sample)
      assert.equal(store.model(sample.cid)?.complete, true)
      assert.ok((await readFile(at('models', sample.cid, 'weights/a.bin'))).equals(content(sample, 1)))
    })

    it('in place: all of a file whose bytes changed unnoticed by its guard', async () => {
      const sample = smallModel(42)
      const path = at('user.bin')
      await writeFile(path, content(sample))
      const { size, mtimeMs, ino, atime, mtime } = await stat(path)
      const index = sample.model.indexes[0]
      assert.ok(index)
      // A file system without a usable mtime: the guard is taken from after the change.
      const { file } = await store.referenceFile(index, { path, size, mtimeMs, ino })
      await store.putModel(sample.model)
      await corrupt(path, 10)
      const handle = await open(path, 'r+')
      await handle.utimes(atime, mtime)
      await handle.close()
      const guardHolds = (await stat(path)).mtimeMs === mtimeMs
      assert.equal(await readBlock(store, file, 0), undefined, `the guard ${guardHolds ? 'still fits' : 'noticed'}`)
      assert.equal(file.present.count, 0)
    })
  })

  describe('leftovers', () => {
    it('are counted by a dry run, removed by gc, and nothing else is', async () => {
      const sample = twoFiles(50)
      await load(store, sample)
      const waiting = smallModel(51).files[0]
      assert.ok(waiting)
      await importAll(store, waiting)
      await writeFile(at('files', 'stray'), Buffer.alloc(10_000))
      await mkdir(at('models', 'stray'))
      await writeFile(at('meta', 'stray.car'), 'stray')
      const dry = await store.gc({ dryRun: true })
      assert.ok(dry.leftoverBytes >= 10_000)
      assert.ok((await readdir(at('files'))).includes('stray'))
      assert.deepEqual(await store.gc(), dry)
      assert.deepEqual(await store.gc(), { removed: [], freedBytes: 0, leftoverBytes: 0 })
      assert.ok((await readFile(at('models', sample.cid, 'weights/a.bin'))).equals(content(sample, 1)))
      assert.equal((await readdir(at('files'))).length, 3, 'a file that came in a moment ago waits for its model')
      await reopen()
      assert.ok((await store.gc()).leftoverBytes >= waiting.content.length, 'but not for ever')
      assert.equal((await readdir(at('files'))).length, 2)
    })
  })
})

async function corrupt (path: string, offset: number): Promise<void> {
  const { mode } = await stat(path)
  await chmod(path, 0o644)
  const handle = await open(path, 'r+')
  const byte = Buffer.alloc(1)
  await handle.read(byte, 0, 1, offset)
  await handle.write(Buffer.of((byte[0] ?? 0) ^ 1), 0, 1, offset)
  await handle.close()
  await chmod(path, mode & 0o777)
}
