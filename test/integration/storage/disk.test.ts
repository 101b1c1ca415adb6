import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chmod, link, lstat, mkdir, open, readFile, readdir, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { seededRandom, systemClock } from '../../../src/base/index.ts'
import { contentOf, fileOf, fileStore, importAll, load, readBlock, sampleOf, smallModel, writeBlock } from '../../compliance/store-fixtures.ts'
import { contentAt, onDisk, twoFiles } from './on-disk.ts'

const run = promisify(execFile)
const NOBODY = 65_534

describe('files: what stands on the disk', () => {
  const disk = onDisk()
  const { at, reopen } = disk

  describe('a part that is evicted', () => {
    it('frees its room, leaves who has the file open what he had, and stays gone after a restart', async () => {
      const random = seededRandom(70)
      const sizes = [1_000_000, 1_000_000, 1_000_000]
      const sample = sampleOf([{ path: 'a.bin', content: contentOf(random, 3_000_000), sizes }])
      await load(disk.store, sample)
      const linked = at('models', sample.cid, 'a.bin')
      const before = (await stat(linked)).blocks
      await using reader = await open(linked, 'r')
      const file = fileOf(disk.store, sample)
      disk.store.spareParts(sample.cid, [{ file, first: 1, count: 1 }])
      assert.equal(await disk.store.evictParts([{ file, first: 1, count: 1 }], 1), 1_000_000)
      const old = Buffer.alloc(3_000_000)
      await reader.read(old, 0, old.length, 0)
      assert.ok(old.equals(contentAt(sample)), 'a reader of the old file sees all of it')
      await assert.rejects(lstat(linked), { code: 'ENOENT' })
      assert.ok((await stat(at('files', file.key))).blocks < before * 0.8)
      assert.deepEqual((await readdir(at('tmp'))).filter(name => name.startsWith('import')), [])
      await reopen()
      const again = fileOf(disk.store, sample)
      assert.deepEqual([...again.present], [0, 2])
      assert.deepEqual((await disk.store.verify(undefined)).bad, [])
      await load(disk.store, sample)
      assert.ok((await readFile(linked)).equals(contentAt(sample)))
    })

    it('waits for nobody who writes: then it stays for now', async () => {
      const sample = twoFiles(71)
      await disk.store.putModel(sample.model)
      const file = fileOf(disk.store, sample, 1)
      await writeBlock(disk.store, file, contentAt(sample, 1), 0)
      await disk.store.flush()
      disk.store.spareParts(sample.cid, [{ file, first: 0, count: 1 }])
      const writing = writeBlock(disk.store, file, contentAt(sample, 1), 1)
      assert.equal(await disk.store.evictParts([{ file, first: 0, count: 1 }], 1), 0)
      await writing
      await disk.store.flush()
      const [evicted] = await Promise.all([disk.store.evictParts([{ file, first: 0, count: 1 }], 1), writeBlock(disk.store, file, contentAt(sample, 1), 2)])
      await disk.store.flush()
      assert.deepEqual([...file.present], evicted > 0 ? [1, 2] : [0, 1, 2])
      assert.deepEqual((await disk.store.verify(undefined)).bad, [])
    })
  })

  describe('layout', () => {
    it('a complete file is the file, read-only, under its path in each model that has it', async () => {
      const sample = twoFiles(1)
      await disk.store.putModel(sample.model)
      const file = fileOf(disk.store, sample, 1)
      assert.equal((await stat(at('files', file.key))).size, 50_000)
      await assert.rejects(lstat(at('models', sample.cid, 'weights/a.bin')), { code: 'ENOENT' })
      let linked: Promise<Buffer> | undefined
      disk.store.events.on('blocks:present', ({ file: { present, key } }) => { if (key === file.key && present.full) linked = readFile(at('models', sample.cid, 'weights/a.bin')) })
      await load(disk.store, sample)
      assert.ok((await linked)?.equals(contentAt(sample, 1)), 'the link is there when the last block is told')
      const { ino, mode, nlink } = await stat(at('models', sample.cid, 'weights/a.bin'))
      assert.equal(ino, (await stat(at('files', file.key))).ino)
      assert.equal(mode & 0o777, 0o444)
      assert.equal(nlink, 2)
      assert.equal(disk.store.model(sample.cid)?.directory, at('models', sample.cid))
      assert.equal(file.path, at('files', file.key))
    })

    it('a partial file is sparse', async () => {
      const size = 64 * 1024 * 1024
      const big = sampleOf([{ path: 'big', content: Buffer.alloc(size), sizes: Array.from({ length: 16 }, () => size / 16) }])
      await disk.store.putModel(big.model)
      await writeBlock(disk.store, fileOf(disk.store, big), contentAt(big), 7)
      await disk.store.flush()
      const { blocks, size: logical } = await stat(at('files', fileOf(disk.store, big).key))
      assert.equal(logical, size)
      assert.ok(blocks * 512 <= 5 * 1024 * 1024, `${blocks * 512} bytes are allocated`)
    })

    it('removing leaves nothing, and keeps what another model shares', async () => {
      const one = twoFiles(2)
      const two = sampleOf([{ path: 'again.bin', content: contentAt(one, 1), sizes: [20_000, 13_000, 17_000] }])
      await load(disk.store, one)
      await disk.store.putModel(two.model)
      await disk.store.removeModel(one.cid)
      assert.ok((await readFile(at('models', two.cid, 'again.bin'))).equals(contentAt(one, 1)))
      await disk.store.removeModel(two.cid)
      for (const name of ['files', 'models', 'meta', 'tmp']) assert.deepEqual(await readdir(at(name)), [], name)
    })

    it('replaces what stands in the way of a link', async () => {
      const sample = twoFiles(3)
      await mkdir(at('models', sample.cid, 'config.json', 'in-the-way'), { recursive: true })
      await load(disk.store, sample)
      assert.ok((await readFile(at('models', sample.cid, 'config.json'))).equals(contentAt(sample)))
    })
  })

  describe('restart', () => {
    it('finds models, blocks and flags as they were', async () => {
      const sample = twoFiles(10)
      const other = smallModel(11)
      await disk.store.putModel(sample.model, { published: true })
      await writeBlock(disk.store, fileOf(disk.store, sample, 1), contentAt(sample, 1), 1)
      await load(disk.store, other)
      await disk.store.setPinned(other.cid, true)
      await reopen()
      const model = disk.store.model(sample.cid)
      assert.equal(model?.published, true)
      assert.equal(disk.store.model(other.cid)?.pinned, true)
      assert.equal(disk.store.model(other.cid)?.complete, true)
      assert.deepEqual([...fileOf(disk.store, sample, 1).present], [1])
      assert.equal(model.presentBytes, 13_000)
      assert.deepEqual(await readBlock(disk.store, fileOf(disk.store, sample, 1), 1), contentAt(sample, 1).subarray(20_000, 33_000))
      await load(disk.store, sample)
      assert.equal(model.complete, true)
    })

    it('makes missing links again, and clears abandoned imports', async () => {
      const sample = twoFiles(12)
      await load(disk.store, sample)
      await disk.store.importFile(2_000_000)
      assert.equal((await readdir(at('tmp'))).length, 1)
      await reopen(async () => { await rm(at('models'), { recursive: true }) })
      assert.ok((await readFile(at('models', sample.cid, 'weights/a.bin'))).equals(contentAt(sample, 1)))
      assert.deepEqual(await readdir(at('tmp')), [])
    })

    it('believes the disk where a file is gone or cut short', async () => {
      const sample = twoFiles(13)
      await load(disk.store, sample)
      const small = fileOf(disk.store, sample, 0)
      const large = fileOf(disk.store, sample, 1)
      await reopen(async () => {
        await rm(at('files', small.key))
        await rm(at('models', sample.cid, 'config.json'))
        await chmod(at('files', large.key), 0o644)
        await truncate(at('files', large.key), 25_000)
      })
      assert.deepEqual([...fileOf(disk.store, sample, 0).present], [])
      assert.deepEqual([...fileOf(disk.store, sample, 1).present], [0])
      assert.deepEqual((await disk.store.verify(undefined)).bad, [])
      await load(disk.store, sample)
      assert.equal(disk.store.model(sample.cid)?.complete, true)
      assert.ok((await readFile(at('models', sample.cid, 'weights/a.bin'))).equals(contentAt(sample, 1)))
      assert.ok((await readFile(at('models', sample.cid, 'config.json'))).equals(contentAt(sample, 0)))
    })

    it('checks files in place', async () => {
      const sample = twoFiles(14)
      const path = at('user.bin')
      await writeFile(path, contentAt(sample, 1))
      const { size, mtimeMs, ino } = await stat(path)
      const index = sample.model.indexes[1]
      assert.ok(index)
      await disk.store.referenceFile(index, { path, size, mtimeMs, ino })
      await disk.store.putModel(sample.model, { published: true })
      await reopen()
      assert.equal(fileOf(disk.store, sample, 1).inPlace, true)
      assert.equal(fileOf(disk.store, sample, 1).present.full, true)
      await reopen(async () => { await writeFile(path, 'other') })
      assert.equal(fileOf(disk.store, sample, 1).inPlace, false)
      assert.equal(fileOf(disk.store, sample, 1).present.count, 0)
      await load(disk.store, sample)
      assert.equal((await readFile(path, 'utf8')), 'other', 'the user\'s file is never written to')
    })

    it('starts with 48 h on the clock either way', async () => {
      const sample = twoFiles(15)
      await load(disk.store, sample)
      for (const hours of [-48, 48]) {
        await reopen(undefined, { ...systemClock, now: () => Date.now() + hours * 3_600_000 })
        await disk.store.touchModel(sample.cid)
        assert.equal(disk.store.model(sample.cid)?.complete, true)
      }
    })
  })

  describe('one process, one version', () => {
    it('refuses a second store, in this process and in another', async () => {
      const second = fileStore(disk.directory)
      await assert.rejects(second.start(), { name: 'StoreLockedError', message: new RegExp(`this process \\(pid ${process.pid}\\)`) })
      const script = `import { fileStore } from ${JSON.stringify(new URL('../../compliance/store-fixtures.ts', import.meta.url).href)}
        await fileStore(${JSON.stringify(disk.directory)}).start().catch(error => { console.log(error.name, error.message) })`
      const { stdout } = await run(process.execPath, ['--input-type=module', '-e', script])
      assert.match(stdout, new RegExp(`^StoreLockedError .*pid ${process.pid}`))
      await disk.store.putModel(twoFiles(20).model) // and the first one goes on
      await reopen()
    })

    it('says what is wrong with a directory that it cannot use, and what to do', async () => {
      await disk.store.stop()
      const lock = at('lock')
      await rm(lock)
      await mkdir(lock)
      await assert.rejects(fileStore(disk.directory).start(), { name: 'DiskError', message: `cannot lock ${disk.directory} by ${lock}: unable to open database file; look at that file and its volume, or give another --data directory` })
      await rm(lock, { recursive: true })
      await writeFile(at('file'), '')
      await assert.rejects(fileStore(at('file')).start(), { name: 'DiskError', message: `${at('file')} is no directory; give another --data directory` })
      await rm(at('version'))
      await mkdir(at('version'))
      await assert.rejects(fileStore(disk.directory).start(), { name: 'DiskError', message: /^cannot read .*version: EISDIR.*; mend that, or give another --data directory$/ })
    })

    it('says that this user may not use a directory', async () => {
      await disk.store.stop()
      await chmod(at('version'), 0o600)
      await chmod(disk.directory, 0o755)
      const script = `import { fileStore } from ${JSON.stringify(new URL('../../compliance/store-fixtures.ts', import.meta.url).href)}
        import { chmodSync, rmSync } from 'node:fs'
        const start = async () => await fileStore(${JSON.stringify(disk.directory)}).start().catch(error => { console.log(error.message) })
        if (process.getuid() === 0) process.seteuid(${NOBODY})
        else chmodSync(${JSON.stringify(at('version'))}, 0)
        await start()
        if (process.getuid() === 0) process.seteuid(0)
        chmodSync(${JSON.stringify(at('version'))}, 0o644)
        rmSync(${JSON.stringify(at('lock'))})
        chmodSync(${JSON.stringify(disk.directory)}, 0o555)
        if (process.getuid() === 0) process.setuid(${NOBODY})
        await start()`
      const { stdout } = await run(process.execPath, ['--input-type=module', '-e', script])
      await chmod(disk.directory, 0o755)
      const otherwise = 'or give another --data directory'
      assert.deepEqual(stdout.split('\n'), [
        `no permission to read ${at('version')}; run as the user that ${disk.directory} belongs to, ${otherwise}`,
        `cannot lock ${disk.directory}: this user may not write ${disk.directory}; run as the user it belongs to, ${otherwise}`,
        ''
      ])
    })

    it('refuses a directory from a newer version, and touches nothing of it', async () => {
      await disk.store.stop()
      await writeFile(at('version'), '2\n')
      const before = (await readdir(disk.directory)).sort()
      await assert.rejects(fileStore(disk.directory).start(), { name: 'StoreVersionError' })
      assert.deepEqual((await readdir(disk.directory)).sort(), before)
      await writeFile(at('version'), 'garbage')
      await assert.rejects(fileStore(disk.directory).start(), { name: 'StoreVersionError' })
    })
  })

  describe('bad blocks', () => {
    it('are found by verify, withdrawn with the links of their file, and repaired in place', async () => {
      const sample = twoFiles(40)
      await load(disk.store, sample)
      const file = fileOf(disk.store, sample, 1)
      await corrupt(at('files', file.key), 20_005)
      const lost: number[] = []
      disk.store.events.on('blocks:lost', ({ blocks }) => { lost.push(...blocks) })
      const { bad } = await disk.store.verify(sample.cid)
      assert.deepEqual(bad.map(({ model, path, block, cid }) => ({ model, path, block, cid })), [{ model: sample.cid, path: 'weights/a.bin', block: 1, cid: file.index.blocks.at(1)?.toString() }])
      assert.deepEqual(lost, [1])
      await assert.rejects(lstat(at('models', sample.cid, 'weights/a.bin')), { code: 'ENOENT' })
      await reopen()
      assert.deepEqual([...fileOf(disk.store, sample, 1).present], [0, 2], 'it stays withdrawn')
      await writeBlock(disk.store, fileOf(disk.store, sample, 1), contentAt(sample, 1), 1)
      await disk.store.flush()
      assert.ok((await readFile(at('models', sample.cid, 'weights/a.bin'))).equals(contentAt(sample, 1)))
      assert.equal((await stat(at('files', file.key))).mode & 0o777, 0o444)
    })

    it('are withdrawn when a read finds the file cut short', async () => {
      const sample = twoFiles(41)
      await load(disk.store, sample)
      const file = fileOf(disk.store, sample, 1)
      await chmod(at('files', file.key), 0o644)
      await truncate(at('files', file.key), 30_000)
      assert.equal(await readBlock(disk.store, file, 1), undefined)
      assert.deepEqual([...file.present], [0], 'it ends before block 2 too')
      await assert.rejects(disk.store.readRange(file, 33_000, 10), { name: 'DiskError' })
      assert.equal(await readBlock(disk.store, file, 2), undefined)
      // As long as it was: the rest of it would be zeros, did it still count as here.
      await writeBlock(disk.store, file, contentAt(sample, 1), 2)
      await disk.store.flush()
      assert.deepEqual([...file.present], [0, 2])
      assert.equal(disk.store.model(sample.cid)?.complete, false)
      await load(disk.store, sample)
      assert.ok((await readFile(at('models', sample.cid, 'weights/a.bin'))).equals(contentAt(sample, 1)))
    })

    it('are withdrawn when a read of a range finds the file cut short, and told by the check of a range', async () => {
      const sample = twoFiles(44)
      await load(disk.store, sample)
      const file = fileOf(disk.store, sample, 1)
      const cutTo = async (bytes: number): Promise<void> => {
        await chmod(at('files', file.key), 0o644)
        await truncate(at('files', file.key), bytes)
      }
      await cutTo(0)
      await assert.rejects(disk.store.readRange(file, 25_000, 10), { name: 'DiskError' })
      assert.deepEqual([...file.present], [])
      await load(disk.store, sample)
      await cutTo(30_000)
      assert.deepEqual((await disk.store.verifyRange(file, 0, 3)).bad, [1, 2])
      assert.deepEqual([...file.present], [0])
    })

    it('are withdrawn when a read finds the file gone', async () => {
      const sample = twoFiles(43)
      await load(disk.store, sample)
      await reopen() // a descriptor that is open would still see the deleted file
      const file = fileOf(disk.store, sample, 1)
      await rm(at('files', file.key))
      await rm(at('models', sample.cid, 'weights/a.bin'))
      assert.equal(await readBlock(disk.store, file, 1), undefined)
      assert.equal(file.present.count, 0)
      await load(disk.store, sample)
      assert.equal(disk.store.model(sample.cid)?.complete, true)
      assert.ok((await readFile(at('models', sample.cid, 'weights/a.bin'))).equals(contentAt(sample, 1)))
    })

    it('in place: all of a file whose bytes changed unnoticed by its guard', async () => {
      const sample = smallModel(42)
      const path = at('user.bin')
      await writeFile(path, contentAt(sample))
      const { size, mtimeMs, ino, atime, mtime } = await stat(path)
      const index = sample.model.indexes[0]
      assert.ok(index)
      // A file system without a usable mtime: the guard is taken from after the change.
      const { file } = await disk.store.referenceFile(index, { path, size, mtimeMs, ino })
      await disk.store.putModel(sample.model)
      await corrupt(path, 10)
      const handle = await open(path, 'r+')
      await handle.utimes(atime, mtime)
      await handle.close()
      const guardHolds = (await stat(path)).mtimeMs === mtimeMs
      assert.equal(await readBlock(disk.store, file, 0), undefined, `the guard ${guardHolds ? 'still fits' : 'noticed'}`)
      assert.equal(file.present.count, 0)
    })
  })

  describe('leftovers', () => {
    it('are counted by a dry run, removed by gc, and nothing else is', async () => {
      const sample = twoFiles(50)
      await load(disk.store, sample)
      const waiting = smallModel(51).files[0]
      assert.ok(waiting)
      await importAll(disk.store, waiting)
      const stray = smallModel(52).cid
      await writeFile(at('files', stray), Buffer.alloc(10_000))
      await mkdir(at('models', stray))
      await writeFile(at('models', stray, 'model.bin'), Buffer.alloc(20_000)) // the only name of it
      await link(at('files', stray), at('models', stray, 'linked.bin'))
      await writeFile(at('meta', `${stray}.car`), 'stray')
      const dry = await disk.store.gc({ dryRun: true })
      assert.ok(dry.leftoverBytes >= 30_000 && dry.leftoverBytes < 60_000, `${dry.leftoverBytes}`)
      assert.ok((await readdir(at('files'))).includes(stray))
      assert.deepEqual(await disk.store.gc(), dry)
      assert.deepEqual(await disk.store.gc(), { removed: [], freedBytes: 0, leftoverBytes: 0 })
      assert.ok((await readFile(at('models', sample.cid, 'weights/a.bin'))).equals(contentAt(sample, 1)))
      assert.equal((await readdir(at('files'))).length, 3, 'a file that came in a moment ago waits for its model')
      await reopen()
      assert.ok((await disk.store.gc()).leftoverBytes >= waiting.content.length, 'but not for ever')
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
