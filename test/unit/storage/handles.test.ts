import assert from 'node:assert/strict'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { HandlePool, readFully } from '../../../src/storage/handles.ts'
import { temporaryDirectory } from '../../compliance/store-fixtures.ts'

describe('HandlePool', () => {
  let directory: AsyncDisposable & { path: string }
  let pool: HandlePool
  const path = (name: string): string => join(directory.path, name)

  beforeEach(async () => {
    directory = await temporaryDirectory()
    pool = new HandlePool(3)
    for (let i = 0; i < 6; i++) await writeFile(path(`f${i}`), `content ${i}`)
  })
  afterEach(async () => {
    await pool.close()
    await directory[Symbol.asyncDispose]()
  })

  const read = async (name: string): Promise<string> => await pool.use(path(name), 'read', async handle => {
    const into = new Uint8Array(20)
    return Buffer.from(into.subarray(0, await readFully(handle, into, 0))).toString()
  })

  it('opens a file once for many uses, and keeps no more open than it may', async () => {
    const first = await pool.acquire(path('f0'), 'read')
    const again = await pool.acquire(path('f0'), 'read')
    assert.equal(first.handle, again.handle)
    first.release()
    again.release()
    for (let i = 0; i < 6; i++) assert.equal(await read(`f${i}`), `content ${i}`)
    assert.equal(pool.size, 3)
  })

  it('closes the least recently used, and none in use', async () => {
    const held = await pool.acquire(path('f0'), 'read')
    for (let i = 1; i < 6; i++) await read(`f${i}`)
    const into = new Uint8Array(9)
    assert.equal(await readFully(held.handle, into, 0), 9)
    held.release()
    held.release()
    const again = await pool.acquire(path('f0'), 'read')
    assert.equal(again.handle, held.handle)
    again.release()
  })

  it('forgets a path: new users get the new file, old ones keep theirs', async () => {
    const held = await pool.acquire(path('f0'), 'read')
    await rm(path('f0'))
    await writeFile(path('f0'), 'another')
    await pool.forget(path('f0'))
    assert.equal(await read('f0'), 'another')
    const into = new Uint8Array(9)
    assert.equal(Buffer.from(into.subarray(0, await readFully(held.handle, into, 0))).toString(), 'content 0')
    held.release()
    await pool.close()
    assert.equal(held.handle.fd, -1, 'it is closed now')
  })

  it('does not remember a failed opening', async () => {
    await assert.rejects(read('missing'), { code: 'ENOENT' })
    await writeFile(path('missing'), 'here')
    assert.equal(await read('missing'), 'here')
  })
})
