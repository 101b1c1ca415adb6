import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { chmod, mkdir, mkdtemp, readFile, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { placeFiles } from '../../../src/api/place.ts'

type Placeable = Parameters<typeof placeFiles>[0][number]

describe('api: placing files', () => {
  let directory: string
  beforeEach(async () => { directory = await mkdtemp(join(tmpdir(), 'shoal-place-')) })
  afterEach(async () => { await rm(directory, { recursive: true }) })

  async function stored (path: string, bytes: Buffer, mode = 0o444): Promise<Placeable> {
    const localPath = join(directory, 'store', Buffer.from(path).toString('hex'))
    await mkdir(dirname(localPath), { recursive: true })
    await writeFile(localPath, bytes)
    await chmod(localPath, mode)
    return { path, size: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex'), localPath }
  }

  const all = async (): Promise<string[]> => (await readdir(join(directory, 'out'), { recursive: true })).sort()

  it('places files under their paths, and again as if nothing had happened', async () => {
    const bytes = randomBytes(5_000_000)
    const files = [await stored('config.json', Buffer.from('{}')), await stored('deep/er/weights.bin', bytes), await stored('empty', Buffer.alloc(0))]
    const progress: number[] = []
    const result = await placeFiles(files, join(directory, 'out'), { onProgress: ({ bytesDone, bytesTotal }) => { progress.push(bytesDone); assert.equal(bytesTotal, 5_000_002) } })
    assert.equal(result.path, join(directory, 'out'))
    assert.equal(result.reflinked + result.linked + result.copied, 3)
    assert.deepEqual(await all(), ['config.json', 'deep', 'deep/er', 'deep/er/weights.bin', 'empty'])
    assert.deepEqual(await readFile(join(directory, 'out', 'deep/er/weights.bin')), bytes)
    assert.equal(progress.at(-1), 5_000_002)
    assert.equal((await placeFiles(files, join(directory, 'out'))).kept, 3)
  })

  it('places a file whose name is as long as can be, and says so of one that is longer', async () => {
    const file = await stored('long', randomBytes(1000), 0o644)
    await placeFiles([{ ...file, path: `deep/${'n'.repeat(255)}` }], join(directory, 'out'))
    assert.deepEqual(await all(), ['deep', `deep/${'n'.repeat(255)}`])
    await assert.rejects(placeFiles([{ ...file, path: 'n'.repeat(256) }], join(directory, 'out')), { name: 'DiskError', message: /ENAMETOOLONG/ })
  })

  it('never links a file that can be written: it is somebody else\'s', async () => {
    const file = await stored('mine', randomBytes(1000), 0o644)
    const result = await placeFiles([file], join(directory, 'out'))
    assert.equal(result.linked, 0)
    assert.notEqual((await stat(join(directory, 'out', 'mine'))).ino, (await stat(file.localPath ?? '')).ino)
  })

  it('does not link a file in place even when it is read-only, nor take it when it has changed', async () => {
    const file = await stored('in-place', randomBytes(1000))
    const { size, mtimeMs, ino } = await stat(file.localPath ?? '')
    const guard = { path: file.localPath ?? '', size, mtimeMs, ino }
    assert.equal((await placeFiles([{ ...file, guard }], join(directory, 'out'))).linked, 0)
    await assert.rejects(placeFiles([{ ...file, path: 'other', guard: { ...guard, mtimeMs: mtimeMs - 1 } }], join(directory, 'out')), { name: 'SourceChangedError' })
    assert.deepEqual(await all(), ['in-place'])
  })

  it('says where no directory can be made, and does not wait for ever', async () => {
    await assert.rejects(placeFiles([await stored('a', randomBytes(10))], '/proc/out/deep'), { name: 'DiskError', message: /^cannot place the files in \/proc\/out\/deep: ENOENT.*; choose another --output$/ })
    await writeFile(join(directory, 'out'), 'a file')
    await assert.rejects(placeFiles([await stored('a', randomBytes(10))], join(directory, 'out', 'below')), { name: /^(DiskError|OutputExistsError)$/ })
  })

  it('follows no link out of the directory', async () => {
    const elsewhere = join(directory, 'elsewhere')
    await mkdir(elsewhere)
    await mkdir(join(directory, 'out'))
    await symlink(elsewhere, join(directory, 'out', 'sub'))
    await assert.rejects(placeFiles([await stored('sub/deep/a', randomBytes(10))], join(directory, 'out')), { name: 'OutputExistsError' })
    assert.deepEqual(await readdir(elsewhere), [])
  })

  it('overwrites nothing, and finds that out before it places anything', async () => {
    const files = [await stored('a', randomBytes(10)), await stored('b', randomBytes(10))]
    const out = join(directory, 'out')
    await mkdir(out)
    const others: Array<() => Promise<unknown>> = [
      async () => { await writeFile(join(out, 'b'), randomBytes(10)) },
      async () => { await writeFile(join(out, 'b'), 'short') },
      async () => { await mkdir(join(out, 'b')) },
      async () => { await symlink(files[1]?.localPath ?? '', join(out, 'b')) }
    ]
    for (const make of others) {
      await make()
      await assert.rejects(placeFiles(files, out), { name: 'OutputExistsError' })
      assert.deepEqual(await all(), ['b'])
      await rm(join(out, 'b'), { recursive: true })
    }
  })

  it('leaves no half file when it is interrupted', async () => {
    // Writable, so that it has to be copied where there are no reflinks.
    const files = [await stored('first', randomBytes(10), 0o644), await stored('large', randomBytes(16 * 1024 * 1024), 0o644)]
    const stopping = new AbortController()
    let interrupted = false
    const placing = placeFiles(files, join(directory, 'out'), {
      signal: stopping.signal,
      onProgress: ({ path, bytesDone }) => { if (path === 'large' && bytesDone < 16 * 1024 * 1024) { interrupted = true; stopping.abort() } }
    })
    if (await placing.then(() => false, error => (error as Error).name === 'AbortError')) assert.deepEqual(await all(), ['first'])
    else assert.equal(interrupted, false, 'where reflinks work there is no middle')
  })

  it('names what stands in the way', async () => {
    const file = await stored('a', randomBytes(10))
    await assert.rejects(placeFiles([{ ...file, localPath: undefined }], join(directory, 'out')), { name: 'DiskError' })
    await assert.rejects(placeFiles([{ ...file, localPath: join(directory, 'gone') }], join(directory, 'out')), { name: 'DiskError' })
    await writeFile(join(directory, 'file'), '')
    await assert.rejects(placeFiles([file], join(directory, 'file', 'out')), { name: 'DiskError' })
    for (const path of ['../evil', '/etc/evil', 'a/../../evil', '.']) await assert.rejects(placeFiles([{ ...file, path }], join(directory, 'out')), { name: 'ProtocolError' }, path)
  })
})
