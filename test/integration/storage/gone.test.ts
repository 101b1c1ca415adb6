import assert from 'node:assert/strict'
import { chmod, link, mkdir, readFile, readdir, rename, rm, rmdir, stat, writeFile } from 'node:fs/promises'
import { fileOf, fileStore, load, readBlock } from '../../compliance/store-fixtures.ts'
import { contentAt, onDisk, twoFiles } from './on-disk.ts'

describe('files: one that is gone', () => {
  const disk = onDisk()
  const { at, reopen } = disk
  const sample = twoFiles(60)
  const linked = (): string => at('models', sample.cid, 'weights/a.bin')
  const own = (): string => at('files', fileOf(disk.store, sample, 1).key)

  beforeEach(async () => {
    await load(disk.store, sample)
    await reopen() // a descriptor that is open would still see the deleted file
  })

  const isWhole = async (): Promise<void> => {
    assert.equal(disk.store.model(sample.cid)?.complete, true)
    assert.deepEqual((await disk.store.verify(undefined)), { blocks: 4, bytes: sample.bytes, bad: [] })
    assert.ok((await readFile(linked())).equals(contentAt(sample, 1)))
  }

  describe('with all others', () => {
    it('is not withdrawn: its directory is elsewhere, or its volume not mounted', async () => {
      const file = fileOf(disk.store, sample, 1)
      await rename(at('files'), at('aside'))
      for (const now of ['not there', 'another one']) {
        await assert.rejects(readBlock(disk.store, file, 1), { name: 'DiskError', message: /moved, or its volume is not mounted/ }, now)
        const { blocks, bad, unchecked } = await disk.store.verify(undefined)
        assert.deepEqual([blocks, bad, unchecked?.blocks], [0, [], 4])
        await assert.rejects(disk.store.gc(), { name: 'DiskError' })
        if (now === 'not there') await mkdir(at('files'))
      }
      await rmdir(at('files'))
      await rename(at('aside'), at('files'))
      await isWhole()
      await reopen()
      await isWhole()
    })

    for (const lost of [false, true]) {
      it(`keeps the store from being started${lost ? ', though the catalog is lost too' : ''}`, async () => {
        await reopen(async () => {
          if (lost) for (const name of await readdir(disk.directory)) if (name.startsWith('catalog.sqlite')) await rm(at(name))
          await rename(at('files'), at('aside'))
          await rename(at('models'), at('links'))
          await mkdir(at('files'))
          for (let times = 0; times < 2; times++) {
            await assert.rejects(fileStore(disk.directory).start(), { name: 'DiskError', message: /none of the 2 files .* mount it and start again/ })
          }
          assert.deepEqual(await readdir(at('files')), [])
          await rmdir(at('files'))
          await rename(at('aside'), at('files'))
          await rm(at('models'), { recursive: true })
          await rename(at('links'), at('models'))
        })
        await isWhole()
      })
    }

    it('is believed when the catalog and what it is made of were moved away', async () => {
      await reopen(async () => {
        for (const name of ['catalog.sqlite', 'meta', 'files', 'models']) await rm(at(name), { recursive: true })
      })
      assert.deepEqual(disk.store.models(), [])
    })
  })

  describe('by its own name only', () => {
    for (const [when, between] of [['while it runs', false], ['while it does not', true]] as const) {
      it(`has it again: ${when}`, async () => {
        const path = own()
        const { ino } = await stat(path)
        if (between) await reopen(async () => { await rm(path) })
        else await rm(path)
        await isWhole()
        assert.equal((await stat(path)).ino, ino)
        assert.equal((await stat(linked())).ino, ino)
        await reopen()
        await isWhole()
      })
    }

    it('is hashed: what another file in its place lacks is withdrawn', async () => {
      const path = own()
      const changed = Buffer.from(contentAt(sample, 1))
      changed[20_005] = (changed[20_005] ?? 0) ^ 1
      const replace = async (): Promise<void> => {
        await rm(path)
        await rm(linked())
        await writeFile(linked(), changed)
      }
      await reopen(replace)
      assert.deepEqual([...fileOf(disk.store, sample, 1).present], [0, 2])
      await load(disk.store, sample)
      await reopen()
      await replace()
      assert.deepEqual(await readBlock(disk.store, fileOf(disk.store, sample, 1), 0), contentAt(sample, 1).subarray(0, 20_000))
      await reopen()
      assert.deepEqual([...fileOf(disk.store, sample, 1).present], [0, 2], 'the next start hashes all of it')
    })

    it('is made anew where somebody else has it too: theirs is not written to', async () => {
      const path = own()
      const theirs = at('theirs')
      await reopen(async () => {
        await link(path, theirs)
        await rm(path)
        await chmod(theirs, 0o644)
        await writeFile(theirs, Buffer.alloc(50_000, 'theirs'))
      })
      assert.deepEqual([...fileOf(disk.store, sample, 1).present], [])
      await load(disk.store, sample)
      await isWhole()
      assert.ok((await readFile(theirs)).equals(Buffer.alloc(50_000, 'theirs')))
    })
  })

  describe('or replaced by its link in a model only', () => {
    const changes = {
      deleted: async () => { await rm(linked()) },
      replaced: async () => {
        await rm(linked())
        await writeFile(linked(), 'edited')
      }
    }
    for (const [what, change] of Object.entries(changes)) {
      for (const how of ['opened', 'verified'] as const) {
        it(`is linked again when the model is ${how}: ${what}`, async () => {
          await change()
          if (how === 'opened') await disk.store.settleModel(sample.cid)
          else assert.deepEqual((await disk.store.verify(undefined)).bad, [])
          assert.equal((await stat(linked())).ino, (await stat(own())).ino)
          await isWhole()
        })
      }
    }
  })
})
