import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readdir, rm, symlink, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { systemClock } from '../../src/base/index.ts'
import { publish, type PublishOptions } from '../../src/node/publish.ts'
import type { ModelStore } from '../../src/storage/index.ts'
import { fileStore } from '../compliance/store-fixtures.ts'
import { temporaryDirectory, writeTree } from '../support/files.ts'

const run = promisify(execFile)

describe('a file that changes after it was listed to be added', () => {
  let top: Awaited<ReturnType<typeof temporaryDirectory>>
  let source: string
  let store: ModelStore

  beforeEach(async () => {
    top = await temporaryDirectory('changed')
    source = join(top.path, 'source', 'model.bin')
    await writeTree(join(top.path, 'source'), { 'model.bin': 300_000 })
    store = fileStore(join(top.path, 'data'))
    await store.start()
  })
  afterEach(async () => {
    await store.stop()
    await top[Symbol.asyncDispose]()
  })

  /** Adds it, and has it changed when the store is first asked for it. */
  const isRefused = async (change: () => Promise<unknown>, options: PublishOptions = {}): Promise<void> => {
    const changing = new Proxy(store, {
      get (target, name) {
        const value: unknown = Reflect.get(target, name)
        if (typeof value !== 'function') return value
        if (name !== 'importFile' && name !== 'cloneFile') return value.bind(target) as unknown
        return async (...given: unknown[]) => {
          await change()
          return await Reflect.apply(value, target, given) as unknown
        }
      }
    })
    await assert.rejects(publish({ store: changing, clock: systemClock }, join(top.path, 'source'), options), { name: 'SourceChangedError' })
    assert.deepEqual(store.models(), [])
    assert.deepEqual(await readdir(join(top.path, 'data', 'tmp')), [])
  }

  // By another name, because not every file system has clones; what is checked is the same.
  it('is not taken by another name of it, or as a clone, whose bytes would be others than those that were listed', async () => {
    await isRefused(async () => { await utimes(source, 1, 1) }, { isGiven: true })
  })

  it('is not waited for when it is a pipe by then', async function () {
    this.timeout(10_000)
    await isRefused(async () => {
      await rm(source)
      await run('mkfifo', [source])
    })
  })

  for (const follow of [false, true]) {
    it(`is not read when it is a link to another by then${follow ? ', though links are followed' : ''}`, async () => {
      const other = join(top.path, 'other')
      await writeFile(other, Buffer.alloc(300_000))
      await isRefused(async () => {
        await rm(source)
        await symlink(other, source)
      }, { follow })
    })
  }
})
