import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { access, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { OpenMessage } from '../../src/api/types.ts'
import { MiB } from '../../src/base/index.ts'
import { shoal } from './cli-process.ts'

const CID = 'bafyr4ifrppmvjkxc7ikbsa4wzpk2elc4nhor7qefkkcnc54irg75pvchmi'

/** A daemon of this test, which sees when the command lets go of the load: from then on a real one may evict the files. */
describe('commands that place files', function () {
  this.timeout(60_000)
  let root = ''
  let server: Server
  let asked = ''
  let letGo: Promise<void> = Promise.resolve()
  /** What the command is to have made when it lets go. */
  let expected = ''

  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'shoal-placing-'))
    const path = join(root, 'weights.bin')
    const content = randomBytes(32 * MiB)
    await writeFile(path, content) // writable, so it is copied and not linked
    const files = [{ path: 'weights.bin', size: content.length, sha256: createHash('sha256').update(content).digest('hex'), localPath: path, complete: true, wanted: true }]
    const result = { cid: CID, path: undefined, bytes: content.length, seconds: 1, fetchedBytes: 0, reusedBytes: content.length, duplicateBytes: 0, peers: {} }
    server = createServer((request, response) => {
      request.setEncoding('utf8').on('data', (text: string) => { asked += text })
      letGo = once(response, 'close').then(async () => { await access(expected) })
      letGo.catch(() => undefined) // awaited by the test
      const messages: OpenMessage[] = [{ type: 'files', files }, { type: 'done', result }]
      for (const message of messages) response.write(`${JSON.stringify(message)}\n`)
    })
    server.listen(join(root, 'api.sock'))
    await once(server, 'listening')
  })
  beforeEach(() => { asked = '' })
  after(async () => {
    server.closeAllConnections()
    server.close()
    await rm(root, { recursive: true, force: true })
  })

  const run = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await shoal(['--api', join(root, 'api.sock'), ...args])
    assert.equal(code, 0, stderr)
    await letGo
    assert.equal((JSON.parse(asked) as { hold?: boolean }).hold, true)
    return stdout.trim()
  }

  it('get --output lets go of the load when the files are in place', async () => {
    expected = join(root, 'placed', 'weights.bin')
    assert.equal(await run('get', CID, '--output', join(root, 'placed')), join(root, 'placed'))
    assert.deepEqual(await readFile(expected), await readFile(join(root, 'weights.bin')))
  })

  it('export --hf-cache lets go of the load when the reference is written', async () => {
    expected = join(root, 'cache', 'models--acme--tiny', 'refs', 'main')
    await run('export', CID, '--hf-cache', '--name', 'acme/tiny', '--cache-dir', join(root, 'cache'))
  })
})
