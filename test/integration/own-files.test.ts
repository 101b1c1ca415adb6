import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { link, mkdir, readdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { createNode } from '../../src/node/index.ts'
import { listSource } from '../../src/node/source-files.ts'
import type { ShoalNode } from '../../src/node/types.ts'
import { temporaryDirectory, writeTree } from '../support/files.ts'

const settings = { listen: ['/ip4/127.0.0.1/tcp/0'] }

/** Whether another process could take the data directory. */
async function isLocked (dataDirectory: string): Promise<boolean> {
  const script = `
    const { DatabaseSync } = require('node:sqlite')
    const database = new DatabaseSync(process.argv[1], { timeout: 0 })
    try { database.exec('BEGIN EXCLUSIVE'); console.log('free') } catch { console.log('locked') }`
  const { stdout } = await promisify(execFile)(process.execPath, ['-e', script, join(dataDirectory, 'lock')])
  return stdout.trim() === 'locked'
}

describe('the files a node lives by', () => {
  let top: Awaited<ReturnType<typeof temporaryDirectory>>
  let models: string
  let dataDirectory: string
  let node: ShoalNode
  let cid: string

  before(async () => {
    top = await temporaryDirectory('own')
    models = join(top.path, 'models')
    dataDirectory = join(models, '.shoal')
    await writeTree(models, { 'one/model.bin': 300_000 })
    node = await createNode({ dataDirectory, settings })
    cid = (await node.add(join(models, 'one'))).cid
  })
  after(async () => {
    await node.stop()
    await top[Symbol.asyncDispose]()
  })
  afterEach(async () => { assert.ok(await isLocked(dataDirectory), 'the data directory is free for others') })

  for (const inPlace of [false, true]) {
    it(`are not added with a directory that holds the data directory${inPlace ? ', in place' : ''}`, async () => {
      await assert.rejects(node.add(models, { inPlace }), error => {
        assert.equal((error as Error).name, 'UsageError')
        assert.ok((error as Error).message.startsWith(dataDirectory), (error as Error).message)
        return true
      })
    })
  }

  it('are not added by themselves', async () => {
    for (const name of await readdir(dataDirectory)) {
      if (name === 'files' || name === 'models' || name === 'tmp' || name === 'origin') continue
      await assert.rejects(node.add(join(dataDirectory, name)), { name: 'UsageError' }, name)
    }
  })

  it('are not added through links of either kind', async () => {
    for (const [name, target] of Object.entries({ whole: dataDirectory, meta: join(dataDirectory, 'meta'), lock: join(dataDirectory, 'lock') })) {
      const linked = join(top.path, name)
      await mkdir(linked)
      await writeFile(join(linked, 'ok.bin'), 'ok')
      await symlink(target, join(linked, 'link'))
      await assert.rejects(node.add(linked, { follow: true }), { name: 'UsageError' }, name)
      await assert.rejects(node.add(join(linked, 'link'), { follow: true }), { name: 'UsageError' }, name)
    }
    const within = join(top.path, 'within')
    await mkdir(within)
    const [sidecar = ''] = await readdir(join(dataDirectory, 'meta'))
    await symlink(join(dataDirectory, 'meta', sidecar), join(within, 'link'))
    await assert.rejects(node.add(within, { followWithin: [dataDirectory] }), { name: 'UsageError' })
    const hard = join(top.path, 'hard')
    await mkdir(hard)
    await link(join(dataDirectory, 'lock'), join(hard, 'model.bin'))
    await assert.rejects(node.add(hard), { name: 'UsageError' })
  })

  it('are all but the models, which may be added again from where they are', async () => {
    assert.equal((await node.add(join(dataDirectory, 'models', cid))).cid, cid)
    const linked = join(top.path, 'again')
    await symlink(join(dataDirectory, 'models', cid), linked)
    assert.equal((await node.add(linked, { follow: true })).cid, cid)
    const [file = ''] = await readdir(join(dataDirectory, 'files'))
    assert.equal((await node.add(join(dataDirectory, 'files', file))).bytes, 300_000)
  })

  it('are not even models when they are to be referenced in place: the node removes what it does not need', async () => {
    const mine = join(dataDirectory, 'models', 'my-llama')
    await writeTree(mine, { 'model.bin': 1_000 })
    const linked = join(top.path, 'mine')
    await symlink(mine, linked)
    const [file = ''] = await readdir(join(dataDirectory, 'files'))
    for (const path of [mine, join(mine, 'model.bin'), linked, join(dataDirectory, 'files', file), join(dataDirectory, 'models')]) {
      await assert.rejects(node.add(path, { inPlace: true, follow: true }), { name: 'UsageError', message: /without --in-place/ }, path)
    }
    assert.equal((await node.add(mine)).bytes, 1_000)
  })

  it('are not models in place either where their directory is on another volume', async () => {
    const other = join(top.path, 'other')
    const directory = join(top.path, 'linked-data')
    await writeTree(other, { 'mine/model.bin': 1_000 })
    await mkdir(directory)
    await symlink(other, join(directory, 'models'))
    for (const path of [join(other, 'mine'), join(directory, 'models', 'mine', 'model.bin')]) {
      await assert.rejects(listSource(path, { follow: true, ownDirectory: directory, inPlace: true }), { name: 'UsageError', message: /without --in-place/ }, path)
    }
  })

  it('are not what clients write beside the socket to have it added', async () => {
    const spool = join(dataDirectory, 'shoal-save-0123456789abcdef')
    await writeTree(spool, { 'model.safetensors': 5_000 })
    assert.equal((await node.add(spool)).bytes, 5_000)
    await writeTree(join(dataDirectory, 'shoal-save-other'), { 'model.safetensors': 5_000 })
    await assert.rejects(node.add(join(dataDirectory, 'shoal-save-other')), { name: 'UsageError' })
  })
})
