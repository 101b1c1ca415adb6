import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type RequestListener, type Server } from 'node:http'
import { connect, createServer as createNetServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { ApiClient } from '../../../src/api/client.ts'
import { API_LINE_BYTES_MAX } from '../../../src/base/index.ts'

/** What a daemon of another version, a broken one, or another program on the path may answer. */
describe('api: client', () => {
  let directory: string
  let server: Server | undefined
  let path: string
  let answer: RequestListener

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'shoal-client-'))
    path = join(directory, 's')
    server = createServer((request, response) => { answer(request, response) })
    await new Promise<void>(resolve => server?.listen(path, resolve))
  })
  afterEach(async () => {
    server?.closeAllConnections()
    await new Promise(resolve => server?.close(resolve))
    await rm(directory, { recursive: true })
  })

  const drain = async (client: ApiClient, signal?: AbortSignal): Promise<number> => {
    let count = 0
    for await (const message of client.open('cid', { signal })) if (message.type === 'progress') count++
    return count
  }

  it('says that no daemon listens where there is no socket, a dead one, a file, or a directory that is a file', async () => {
    const dead = join(directory, 'dead')
    const other = createNetServer()
    await new Promise<void>(resolve => other.listen(dead, resolve))
    await writeFile(join(directory, 'file'), '')
    const { link } = await import('node:fs/promises')
    await link(dead, join(directory, 'left'))
    await new Promise(resolve => { other.close(resolve) })
    for (const name of ['missing', 'left', 'file', 'file/under', 'no/such/directory']) {
      await assert.rejects(new ApiClient({ socketPath: join(directory, name) }).status(), error => error instanceof Error && error.name === 'DaemonUnreachableError' && error.message.includes(name), name)
    }
    assert.throws(() => new ApiClient({ socketPath: `/${'x'.repeat(107)}` }), { name: 'ConfigError' })
  })

  it('says that too many wait where the queue of the socket is full', async () => {
    // More than node:http lets wait, and none is taken out before this test waits itself.
    const waiting = Array.from({ length: 600 }, () => connect(path).on('error', () => undefined))
    await assert.rejects(new ApiClient({ socketPath: path }).status(), { name: 'ApiBusyError' })
    for (const socket of waiting) socket.destroy()
  })

  it('makes errors again under their names, and takes nonsense for what it is', async () => {
    const client = new ApiClient({ socketPath: path })
    const json = { name: 'NoProviderError', message: 'nobody', kind: 'not-found', retryable: true, fault: 'network' }
    answer = (_request, response) => { response.writeHead(404).end(JSON.stringify({ error: json })) }
    await assert.rejects(client.status(), json)
    for (const body of ['', '<html>', '{}', '{"error":{"name":"X"}}', '{"error":null}', '{"error":{"name":"X","message":"y","kind":"z"}}']) {
      answer = (_request, response) => { response.writeHead(500).end(body) }
      await assert.rejects(client.status(), { name: 'ApiError' }, body)
    }
    answer = (_request, response) => { response.writeHead(200).end('not json') }
    await assert.rejects(client.status(), { name: 'ApiError' })
    await assert.rejects(drain(client), { name: 'ApiError' })
  })

  it('notices a stream that ends without an end, by FIN or by reset', async () => {
    const client = new ApiClient({ socketPath: path })
    answer = (_request, response) => { response.write('{"type":"progress"}\n'); response.end() }
    await assert.rejects(drain(client), { name: 'DaemonUnreachableError' })
    answer = (_request, response) => { response.write('{"type":"progress"}\n', () => { response.destroy() }) }
    await assert.rejects(drain(client), { name: 'DaemonUnreachableError' })
    answer = request => { request.socket.destroy() }
    await assert.rejects(drain(client), { name: 'DaemonUnreachableError' })
    await assert.rejects(client.status(), { name: 'DaemonUnreachableError' })
  })

  it('does not keep a line without end', async () => {
    answer = (_request, response) => {
      const piece = 'x'.repeat(1024 * 1024)
      const more = (): void => { while (!response.destroyed && response.write(piece)); }
      response.on('drain', more).on('error', () => undefined)
      more()
    }
    const before = process.memoryUsage().rss
    await assert.rejects(drain(new ApiClient({ socketPath: path })), { name: 'ApiError' })
    assert.ok(process.memoryUsage().rss - before < API_LINE_BYTES_MAX * 6)
  })

  it('aborts before, while waiting for the head, and in the middle, and hangs up', async () => {
    const client = new ApiClient({ socketPath: path })
    await assert.rejects(client.status({ signal: AbortSignal.abort() }), { name: 'AbortError', kind: 'aborted' })
    const closed: Array<Promise<unknown>> = []
    for (const begin of [false, true]) {
      const stopping = new AbortController()
      answer = (request, response) => {
        closed.push(new Promise(resolve => request.socket.once('close', resolve)))
        if (begin) response.write('{"type":"progress"}\n', () => { setImmediate(() => { stopping.abort() }) })
        else stopping.abort()
      }
      await assert.rejects(drain(client, stopping.signal), { name: 'AbortError', kind: 'aborted' })
    }
    await Promise.all(closed)
    assert.equal(closed.length, 2)
  })

  it('goes on with what it does with a held load when the daemon goes away meanwhile', async () => {
    const result = { cid: 'cid', bytes: 1 }
    let lost: Promise<unknown> = Promise.resolve()
    answer = (_request, response) => {
      lost = once(response, 'close')
      response.writeHead(200).write(`${JSON.stringify({ type: 'done', result })}\n`)
    }
    const loaded = await new ApiClient({ socketPath: path }).load('cid', {
      whileHeld: async () => {
        server?.closeAllConnections()
        await lost
        for (let turns = 0; turns < 10; turns++) await nextTurn() // until this end has noticed as well
      }
    })
    assert.deepEqual(loaded, result)
  })

  it('hangs up when nobody reads on', async () => {
    let closed: Promise<unknown> | undefined
    answer = (request, response) => {
      closed = new Promise(resolve => request.socket.once('close', resolve))
      response.write('{"type":"progress"}\n{"type":"progress"}\n')
    }
    for await (const message of new ApiClient({ socketPath: path }).open('cid')) { assert.equal(message.type, 'progress'); break }
    await closed
    assert.ok(closed !== undefined)
  })
})
