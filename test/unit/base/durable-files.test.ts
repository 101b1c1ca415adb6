import assert from 'node:assert/strict'
import { mkdir, readFile, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { writeDurably } from '../../../src/base/index.ts'
import { temporaryDirectory } from '../../support/files.ts'

describe('writing durably', () => {
  it('replaces what was there, piece by piece, with the mode that was asked for', async () => {
    await using directory = await temporaryDirectory('durable')
    const path = join(directory.path, 'file')
    await writeDurably(path, Buffer.from('a longer one'))
    await writeDurably(path, [Buffer.from('two '), Buffer.from('parts')], { mode: 0o600 })
    assert.equal(await readFile(path, 'utf8'), 'two parts')
    assert.equal((await stat(path)).mode & 0o777, 0o600)
    assert.deepEqual(await readdir(directory.path), ['file'])
  })

  it('leaves what was there, and nothing half, when it fails', async () => {
    await using directory = await temporaryDirectory('durable')
    const path = join(directory.path, 'file')
    await writeDurably(path, Buffer.from('old'))
    const broken = (function * () { yield Buffer.from('new'); throw new Error('no more') })()
    await assert.rejects(writeDurably(path, broken), { message: 'no more' })
    assert.equal(await readFile(path, 'utf8'), 'old')
    await mkdir(join(directory.path, 'taken'))
    await assert.rejects(writeDurably(join(directory.path, 'taken'), Buffer.from('x')), { code: 'EISDIR' })
    assert.deepEqual(await readdir(directory.path), ['file', 'taken'])
  })
})
