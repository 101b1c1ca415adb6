import assert from 'node:assert/strict'
import { readdirSync, readlinkSync } from 'node:fs'
import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { asError, randomInt, seededRandom, silentLogger, systemClock, type Random } from '../../../src/base/index.ts'
import { createMemoryStore, type ModelStore } from '../../../src/storage/index.ts'
import { fileOf, fileStore, importAll, readBlock, seedOf, settings, temporaryDirectory, writeBlock, type Sample } from '../../compliance/store-fixtures.ts'
import { killModels } from './kill-models.ts'

/** What may be refused when others remove, hold and fill at the same time. */
const FAIR = new Set(['ModelNotFoundError', 'ModelInUseError', 'QuotaExceededError', 'SourceChangedError', 'DiskError'])
const ROUNDS = Number(process.env.SHOAL_CHAOS_ROUNDS ?? 3)

describe('stores: everything at once', function () {
  this.timeout(20_000 + ROUNDS * 10_000)

  const createMemory = async (): Promise<ModelStore> => createMemoryStore({ clock: systemClock, random: seededRandom(1), logger: silentLogger, settings: { ...settings, syncBytes: 100_000, syncIntervalMs: 1, quota: 3_000_000 } })

  it('in files: what is recorded reads back right, at the end and after a restart', async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const seed = seedOf() + round
      await using directory = await temporaryDirectory()
      await using users = await temporaryDirectory()
      const create = (): ModelStore => fileStore(directory.path, { settings: { syncBytes: 100_000, syncIntervalMs: 1, quota: 3_000_000 } })
      let store = create()
      await store.start()
      let state: unknown
      try {
        await chaos(store, seed, users.path)
        state = describeStore(store)
        await checkAll(store, killModels(seed), `SHOAL_SEED=${seed}`)
      } finally {
        await store.stop()
      }
      assert.deepEqual(openFilesBelow(directory.path), [], `SHOAL_SEED=${seed}: descriptors stay open`)
      store = create()
      await store.start()
      try {
        assert.deepEqual(describeStore(store), state, `SHOAL_SEED=${seed}: a restart changed something`)
        await checkAll(store, killModels(seed), `SHOAL_SEED=${seed}, after a restart`)
        await checkLinks(store, killModels(seed), `SHOAL_SEED=${seed}`)
      } finally {
        await store.stop()
      }
    }
  })

  it('in memory: what is recorded reads back right', async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const seed = seedOf() + round
      await using users = await temporaryDirectory()
      const store = await createMemory()
      await store.start()
      try {
        await chaos(store, seed, users.path)
        await checkAll(store, killModels(seed), `SHOAL_SEED=${seed}`)
      } finally {
        await store.stop()
      }
    }
  })
})

async function chaos (store: ModelStore, seed: number, userDirectory: string): Promise<void> {
  const models = killModels(seed)
  const lane = async (random: Random): Promise<void> => {
    for (let i = 0; i < 40; i++) {
      const sample = models[randomInt(random, models.length)]
      if (sample === undefined) return
      try {
        await oneThing(store, sample, random, userDirectory)
      } catch (error) {
        if (!(error instanceof Error) || !FAIR.has(error.name)) throw new Error(`SHOAL_SEED=${seed}`, { cause: error })
      }
    }
  }
  const lanes = await Promise.allSettled([1, 2, 3, 4].map(async number => { await lane(seededRandom(seed + number * 1_000_003)) }))
  for (const outcome of lanes) if (outcome.status === 'rejected') throw asError(outcome.reason)
  await store.flush()
  // Whatever was promised to anybody was used, or given back: the rest of the quota is free to the byte.
  const { heldBytes, quotaBytes } = await store.status()
  const rest = (quotaBytes ?? 0) - heldBytes
  assert.ok(rest >= 0, `SHOAL_SEED=${seed}: ${-rest} bytes beyond the quota`)
  const all = await store.importFile(rest, { evict: false })
  assert.ok(all !== undefined, `SHOAL_SEED=${seed}: ${heldBytes} bytes are held, and the other ${rest} cannot be had`)
  await all.abort()
}

async function oneThing (store: ModelStore, sample: Sample, random: Random, userDirectory: string): Promise<void> {
  const position = randomInt(random, sample.files.length)
  const given = sample.files[position]
  if (given === undefined) return
  const what = random.next()
  if (what < 0.45) {
    const letGo = random.next() < 0.5 ? store.holdModel(sample.cid) : () => undefined
    try {
      await store.putModel(sample.model)
      for (let block = randomInt(random, 3); block < given.index.value.blocks.length; block += 1 + randomInt(random, 3)) {
        await writeBlock(store, fileOf(store, sample, position), given.content, block)
      }
    } catch (error) {
      if (!(error instanceof Error) || !/lacks file/.test(error.message)) throw error
    } finally {
      letGo()
    }
  } else if (what < 0.6) {
    await store.removeModel(sample.cid)
  } else if (what < 0.7) {
    await importAll(store, given)
  } else if (what < 0.8) {
    const path = join(userDirectory, `${sample.cid}-${position}`)
    await writeFile(path, given.content)
    const { size, mtimeMs, ino } = await stat(path)
    await store.referenceFile(given.index, { path, size, mtimeMs, ino })
  } else if (what < 0.85) {
    await store.verify(undefined)
  } else if (what < 0.9) {
    await store.gc()
  } else if (what < 0.95) {
    await store.setPinned(sample.cid, random.next() < 0.3)
  } else if (what < 0.97) {
    const file = store.model(sample.cid)?.files[position]
    if (file === undefined || file.present.length === 0) return
    const part = { file, first: 0, count: file.present.length }
    const letGo = await store.holdRoom(part, 'a part')
    try {
      await store.reusePart(part)
      await writeBlock(store, file, given.content, 0)
    } finally {
      letGo()
    }
  } else if (what < 0.98) {
    await (await store.importFile(given.content.length)).abort()
  } else if (what < 0.99) {
    const parts = (store.model(sample.cid)?.files ?? []).filter(({ present }) => present.length > 0).map(file => ({ file, first: 0, count: 1 }))
    store.keepModel(sample.cid, true)
    store.spareParts(sample.cid, parts)
    try {
      await store.evictParts(parts, 1_000_000)
    } finally {
      store.spareParts(sample.cid, [])
      store.keepModel(sample.cid, false)
    }
  } else {
    const file = store.model(sample.cid)?.files[position]
    const [first] = file?.present ?? []
    if (file !== undefined && first !== undefined) await readBlock(store, file, first)
  }
}

/** All that a restart must bring back. */
function describeStore (store: ModelStore): unknown {
  return store.models().map(({ cid, pinned, published, files }) => ({
    cid, pinned, published, files: files.map(({ key, present, presentBytes, inPlace }) => ({ key, present: [...present], presentBytes, inPlace }))
  })).sort((a, b) => (a.cid < b.cid ? -1 : 1))
}

async function checkAll (store: ModelStore, samples: Sample[], context: string): Promise<void> {
  let held = 0
  const seen = new Set<string>()
  for (const sample of samples) {
    for (const [position, file] of (store.model(sample.cid)?.files ?? []).entries()) {
      const content = sample.files[position]?.content ?? Buffer.alloc(0)
      let bytes = 0
      for (const block of file.present) {
        const offset = file.offsets[block] ?? 0
        const size = file.index.sizes[block] ?? 0
        bytes += size
        if (file.inPlace) continue // its user may have written it again since
        assert.ok((await readBlock(store, file, block))?.equals(content.subarray(offset, offset + size)), `${context}: block ${block} of ${file.key}`)
        const cid = file.index.blocks.at(block)
        assert.ok(cid !== undefined && store.findBlock(cid) !== undefined, `${context}: block ${block} of ${file.key} is not found`)
      }
      assert.equal(file.presentBytes, bytes, `${context}: presentBytes of ${file.key}`)
      if (!file.inPlace && !seen.has(file.key)) held += bytes
      seen.add(file.key)
    }
  }
  const { heldBytes } = await store.status()
  assert.ok(heldBytes >= held, `${context}: ${heldBytes} bytes held, models have ${held}`)
  assert.deepEqual((await store.verify(undefined)).bad.filter(({ reason }) => !reason.includes('shoal-store-')), [], context)
}

async function checkLinks (store: ModelStore, samples: Sample[], context: string): Promise<void> {
  for (const sample of samples) {
    const model = store.model(sample.cid)
    if (model?.directory === undefined) continue
    const { directory, files } = model
    for (const [position, { path, content }] of sample.files.entries()) {
      const complete = files[position]?.present.full ?? false
      const linked: Buffer | undefined = await readFile(join(directory, path)).catch(() => undefined)
      assert.equal(linked !== undefined, complete, `${context}: ${path} of ${sample.cid}`)
      if (linked !== undefined) assert.ok(linked.equals(content), `${context}: ${path} of ${sample.cid}`)
    }
  }
}

function openFilesBelow (directory: string): string[] {
  return readdirSync('/proc/self/fd').flatMap(fd => {
    try {
      const path = readlinkSync(`/proc/self/fd/${fd}`)
      return path.startsWith(directory) ? [path] : []
    } catch {
      return [] // the descriptor of this very listing
    }
  })
}
