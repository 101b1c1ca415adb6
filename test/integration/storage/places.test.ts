import assert from 'node:assert/strict'
import { access, mkdir, readFile, readdir, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { mock } from 'node:test'
import { seededRandom, silentLogger, systemClock, type Clock } from '../../../src/base/index.ts'
import { BlockStore } from '../../../src/storage/block-store.ts'
import { Catalog } from '../../../src/storage/catalog.ts'
import { DiskBytes } from '../../../src/storage/disk-bytes.ts'
import { localFiles, type ModelStore, type StoredFile } from '../../../src/storage/index.ts'
import { contentOf, fileOf, load, readBlock, sampleOf, settings, smallModel, temporaryDirectory, told, writeBlock, type Sample } from '../../compliance/store-fixtures.ts'

describe('files in place: where they are', () => {
  let directory: AsyncDisposable & { path: string }
  let bytes: DiskBytes
  let store: ModelStore
  /** What waits for its time. */
  let timers: Array<{ delayMs: number, fn: () => void }>

  const clock: Clock = {
    ...systemClock,
    setTimeout: (fn, delayMs) => {
      const timer = { delayMs, fn }
      timers.push(timer)
      const cancel = delayMs < 60_000 ? systemClock.setTimeout(fn, delayMs) : () => undefined
      return () => {
        timers = timers.filter(other => other !== timer)
        cancel()
      }
    }
  }
  const start = async (quota?: number): Promise<void> => {
    timers = []
    bytes = new DiskBytes({ directory: at('data'), directIo: 'auto', random: seededRandom(7), logger: silentLogger })
    store = new BlockStore(bytes, { clock, logger: silentLogger, settings: { ...settings, quota } })
    await store.start()
  }
  const restart = async (between: () => Promise<void> = async () => undefined): Promise<void> => {
    await store.stop()
    await between()
    await start()
  }
  beforeEach(async () => {
    directory = await temporaryDirectory()
    await start()
  })
  afterEach(async () => {
    mock.restoreAll()
    await store.stop()
    await directory[Symbol.asyncDispose]()
  })

  const at = (...names: string[]): string => join(directory.path, ...names)
  const lookAgain = async (): Promise<void> => {
    const [timer, ...more] = timers.filter(({ delayMs }) => delayMs === 60_000)
    assert.ok(timer !== undefined && more.length === 0, 'it looks again in a minute, once')
    timers = timers.filter(other => other !== timer)
    timer.fn()
  }
  /** Writes the files of a model below a directory, and references them. */
  const add = async (sample: Sample, root: string): Promise<void> => {
    for (const [position, { path, content }] of sample.files.entries()) {
      const full = at(root, path)
      await mkdir(join(full, '..'), { recursive: true })
      if (!await access(full).then(() => true, () => false)) await writeFile(full, content)
      await reference(sample, position, full)
    }
    await store.putModel(sample.model, { published: true })
  }
  const reference = async (sample: Sample, position: number, path: string): Promise<void> => {
    const { size, mtimeMs, ino } = await stat(path)
    const index = sample.model.indexes[position]
    assert.ok(index)
    await store.referenceFile(index, { path, size, mtimeMs, ino })
  }
  const contentAt = (sample: Sample, position = 0): Buffer => sample.files[position]?.content ?? Buffer.alloc(0)
  const isServed = async (file: StoredFile, content: Buffer): Promise<void> => { assert.ok(content.equals(await store.readRange(file, 0, content.length))) }
  const ownFiles = async (): Promise<string[]> => await readdir(at('data', 'files'))
  const pathsOf = (sample: Sample): Array<string | undefined> => {
    const model = store.model(sample.cid)
    assert.ok(model)
    return model.files.map((_, position) => localFiles(model)(position).path)
  }

  describe('that are away', () => {
    it('at one start are in place again at the next, and take no room', async () => {
      const sample = smallModel(1)
      await add(sample, 'mnt')
      await restart(async () => { await rename(at('mnt'), at('unmounted')) })
      const away = fileOf(store, sample)
      assert.deepEqual([away.present.count, away.presentBytes, away.inPlace, away.away], [0, 0, false, at('mnt/model.bin')])
      assert.deepEqual([store.model(sample.cid)?.complete, store.model(sample.cid)?.directory], [false, undefined])
      await restart()
      assert.equal(fileOf(store, sample).away, at('mnt/model.bin'), 'it goes on to be kept in mind')
      await restart(async () => { await rename(at('unmounted'), at('mnt')) })
      const back = fileOf(store, sample)
      assert.deepEqual([back.present.full, back.inPlace, back.path, back.away], [true, true, at('mnt/model.bin'), undefined])
      await isServed(back, contentAt(sample))
      assert.deepEqual([await ownFiles(), (await store.status()).heldBytes], [[], 0])
    })

    it('are looked for now and then, told when they are back, and not looked for after that', async () => {
      const sample = smallModel(2)
      await add(sample, 'mnt')
      const file = fileOf(store, sample)
      await rm(at('mnt.other'), { force: true })
      await rename(at('mnt'), at('unmounted'))
      await writeFile(at('mnt'), 'ENOTDIR')
      assert.equal(await readBlock(store, file, 0), undefined)
      assert.equal(file.away, at('mnt/model.bin'))
      await lookAgain()
      await rm(at('mnt'))
      await rename(at('unmounted'), at('mnt'))
      const log = told(store)
      while (timers.every(({ delayMs }) => delayMs !== 60_000)) await new Promise(resolve => { setImmediate(resolve) })
      await lookAgain()
      while (!file.present.full) await new Promise(resolve => { setImmediate(resolve) })
      assert.deepEqual([log.present.length, log.complete], [8, [file.key]])
      await isServed(file, contentAt(sample))
      await store.settleModel(sample.cid)
      assert.deepEqual(timers.filter(({ delayMs }) => delayMs === 60_000), [])
    })

    for (const [how, look] of [
      ['verified', async () => { await store.verify(undefined) }],
      ['opened', async (sample: Sample) => { await store.settleModel(sample.cid) }],
      ['added again', async (sample: Sample) => { await add(sample, 'mnt') }]
    ] as Array<[string, (sample: Sample) => Promise<void>]>) {
      it(`are in place again when their model is ${how}`, async () => {
        const sample = smallModel(3)
        await add(sample, 'mnt')
        await rename(at('mnt'), at('unmounted'))
        assert.match((await store.verify(undefined)).bad[0]?.reason ?? '', /cannot be opened any more \(ENOENT\)/)
        assert.notEqual(fileOf(store, sample).away, undefined)
        await rename(at('unmounted'), at('mnt'))
        await look(sample)
        assert.deepEqual([fileOf(store, sample).inPlace, store.model(sample.cid)?.complete, await ownFiles()], [true, true, []])
        assert.deepEqual((await store.verify(undefined)).bad, [])
      })
    }

    it('are noticed when their model is opened', async () => {
      const sample = smallModel(4)
      await add(sample, 'mnt')
      await rename(at('mnt'), at('unmounted'))
      await store.settleModel(sample.cid)
      assert.equal(fileOf(store, sample).away, at('mnt/model.bin'))
    })

    it('do not keep their model from being opened while nothing can be recorded', async () => {
      const sample = smallModel(8)
      await add(sample, 'mnt')
      const full = mock.method(Catalog.prototype, 'setPlaces', () => { throw Object.assign(new Error('planted'), { code: 'ENOSPC' }) })
      await rename(at('mnt'), at('unmounted'))
      await store.settleModel(sample.cid)
      assert.deepEqual([fileOf(store, sample).present.count, (await store.status()).writable], [0, false])
      await rename(at('unmounted'), at('mnt'))
      assert.deepEqual(await store.verify(undefined), { blocks: 0, bytes: 0, bad: [] })
      full.mock.restore()
      await store.flush()
      await store.settleModel(sample.cid)
      assert.equal(store.model(sample.cid)?.complete, true)
      await restart()
      assert.deepEqual([store.model(sample.cid)?.complete, await ownFiles()], [true, []])
    })

    it('are forgotten when another file is there instead', async () => {
      const sample = smallModel(5)
      await add(sample, 'mnt')
      await restart(async () => { await rename(at('mnt'), at('unmounted')) })
      await mkdir(at('mnt'))
      await writeFile(at('mnt/model.bin'), contentAt(sample))
      await store.verify(undefined)
      assert.deepEqual([fileOf(store, sample).away, fileOf(store, sample).inPlace], [undefined, false])
      await restart(async () => { await rm(at('mnt'), { recursive: true }); await rename(at('unmounted'), at('mnt')) })
      assert.equal(fileOf(store, sample).inPlace, false, 'for good')
    })

    it('are a copy of our own when they were loaded meanwhile', async () => {
      const sample = smallModel(6)
      await add(sample, 'mnt')
      await restart(async () => { await rename(at('mnt'), at('unmounted')) })
      await load(store, sample)
      await restart(async () => { await rename(at('unmounted'), at('mnt')) })
      assert.deepEqual([fileOf(store, sample).inPlace, fileOf(store, sample).present.full], [false, true])
      assert.ok((await readFile(at('data/models', sample.cid, 'model.bin'))).equals(contentAt(sample)))
    })

    it('are in place again after the catalog was lost, too', async () => {
      const sample = smallModel(7)
      await add(sample, 'mnt')
      await rename(at('mnt'), at('unmounted'))
      await store.verify(undefined)
      await restart(async () => { for (const suffix of ['', '-wal', '-shm']) await rm(at(`data/catalog.sqlite${suffix}`), { force: true }) })
      assert.equal(fileOf(store, sample).away, at('mnt/model.bin'))
      await restart(async () => { await rename(at('unmounted'), at('mnt')) })
      assert.deepEqual([fileOf(store, sample).inPlace, store.model(sample.cid)?.complete], [true, true])
    })
  })

  describe('that are added again', () => {
    it('after they were moved are in place where they are now, with no room at all', async () => {
      await store.stop()
      await start(10)
      const sample = smallModel(10)
      await add(sample, 'one')
      await rename(at('one'), at('two'))
      await store.verify(undefined)
      await add(sample, 'two')
      const file = fileOf(store, sample)
      assert.deepEqual([file.inPlace, file.path, await ownFiles(), (await store.status()).heldBytes], [true, at('two/model.bin'), [], 0])
      await isServed(file, contentAt(sample))
    })

    it('beside a copy of our own that lacks something are copied only when there is room for that', async () => {
      const sample = smallModel(11)
      await add(sample, 'one')
      await rename(at('one'), at('two'))
      await store.verify(undefined)
      await writeBlock(store, fileOf(store, sample), contentAt(sample), 0)
      await store.stop()
      await start(20_000)
      await assert.rejects(add(sample, 'two'), { name: 'QuotaExceededError' })
      assert.deepEqual([...fileOf(store, sample).present], [0])
      assert.equal((await store.status()).writable, true)
      await store.stop()
      await start()
      await add(sample, 'two')
      assert.deepEqual([fileOf(store, sample).inPlace, fileOf(store, sample).present.full], [false, true])
    })

    it('cost nothing when they are as they were, and little when thousands are not', async () => {
      const count = 200
      const sample = sampleOf(Array.from({ length: count }, (_, i) => ({ path: `f${i}.json`, content: contentOf(seededRandom(100 + i), 30), sizes: [30] })))
      await add(sample, 'many')
      const recorded = mock.method(Catalog.prototype, 'setPlaces')
      const saved = mock.method(DiskBytes.prototype, 'saveFlags')
      const all = async (): Promise<void> => { await Promise.all(sample.files.map(async ({ path }, position) => { await reference(sample, position, at('many', path)) })) }
      await all()
      await store.flush()
      assert.deepEqual([recorded.mock.callCount(), saved.mock.callCount()], [0, 0])
      for (const { path } of sample.files) await utimes(at('many', path), 1, 1)
      await all()
      await store.flush()
      assert.ok(recorded.mock.callCount() <= 10, `${recorded.mock.callCount()} transactions`)
      assert.ok(saved.mock.callCount() <= 3, `${saved.mock.callCount()} times all that is kept of the model`)
      assert.deepEqual((await store.verify(undefined)).bad, [])
      const started = [recorded.mock.callCount(), saved.mock.callCount()]
      await restart(async () => { await rename(at('many'), at('moved')) })
      assert.ok(recorded.mock.callCount() - (started[0] ?? 0) <= 10)
      assert.ok(saved.mock.callCount() - (started[1] ?? 0) <= 2)
      assert.equal(store.model(sample.cid)?.presentBytes, 0)
      await restart(async () => { await rename(at('moved'), at('many')) })
      assert.equal(store.model(sample.cid)?.complete, true)
    })
  })

  describe('of two models that share a file', () => {
    const tokenizer = { path: 'tokenizer.json', content: contentOf(seededRandom(20), 900), sizes: [400, 500] }
    const modelWith = (seed: number): Sample => sampleOf([tokenizer, { path: 'weights.bin', content: contentOf(seededRandom(seed), 3_000), sizes: [3_000] }])
    let base: Sample
    let tuned: Sample
    beforeEach(async () => {
      base = modelWith(21)
      tuned = modelWith(22)
      await add(base, 'base')
      await add(tuned, 'tuned')
    })
    const filesOf = (root: string): string[] => ['tokenizer.json', 'weights.bin'].map(path => at(root, path))

    it('are each where it was added from', async () => {
      assert.deepEqual([pathsOf(base), pathsOf(tuned)], [filesOf('base'), filesOf('tuned')])
      await restart()
      assert.deepEqual([pathsOf(base), pathsOf(tuned)], [filesOf('base'), filesOf('tuned')])
      await restart(async () => { for (const suffix of ['', '-wal', '-shm']) await rm(at(`data/catalog.sqlite${suffix}`), { force: true }) })
      assert.deepEqual([pathsOf(base), pathsOf(tuned)], [filesOf('base'), filesOf('tuned')])
    })

    for (const [goes, stays] of [['base', 'tuned'], ['tuned', 'base']] as const) {
      it(`go on when the other goes: ${goes}`, async () => {
        const left = stays === 'base' ? base : tuned
        await store.removeModel(goes === 'base' ? base.cid : tuned.cid)
        await rm(at(goes), { recursive: true })
        const log = told(store)
        await isServed(fileOf(store, left), tokenizer.content)
        assert.deepEqual(await store.verify(undefined), { blocks: 3, bytes: 3_900, bad: [] })
        await store.settleModel(left.cid)
        assert.deepEqual([log.lost, pathsOf(left), store.model(left.cid)?.complete], [[], filesOf(stays), true])
        await restart()
        assert.deepEqual([pathsOf(left), store.model(left.cid)?.complete], [filesOf(stays), true])
      })
    }

    it('have a place for each model, of more models than a file of one has places', async () => {
      const roots = Array.from({ length: 10 }, (_, each) => `more-${each}`)
      const models = roots.map((_, each) => modelWith(30 + each))
      for (const [each, model] of models.entries()) await add(model, roots[each] ?? '')
      await restart()
      for (const root of ['base', 'tuned', ...roots.slice(1)]) await rm(at(root), { recursive: true })
      const [left = base] = models
      await store.settleModel(left.cid)
      assert.deepEqual([pathsOf(left), store.model(left.cid)?.complete], [filesOf('more-0'), true])
      for (let times = 0; times < 20; times++) await add(base, `copy-${times}`)
      assert.ok((fileOf(store, base, 1).places?.length ?? 0) < 12, 'copies of one model are not all kept in mind')
    })

    it('are served block by block from the other place when one changes', async () => {
      for (const [changed, other] of [['base', 'tuned'], ['tuned', undefined]] as const) {
        await writeFile(at(changed, 'tokenizer.json'), 'mine now')
        const block = await readBlock(store, fileOf(store, base), 1)
        assert.deepEqual([block?.equals(tokenizer.content.subarray(400)), fileOf(store, base).guard?.path], other === undefined ? [undefined, undefined] : [true, at(other, 'tokenizer.json')])
      }
      assert.equal(fileOf(store, base).away, undefined)
    })
  })
})
