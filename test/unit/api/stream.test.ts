import assert from 'node:assert/strict'
import { ndjson, type Sink } from '../../../src/api/stream.ts'

type Message = { type: string, n?: number }
const decoder = new TextDecoder()

function start (work: (sink: Sink<Message>, signal: AbortSignal) => Promise<void>, signals: { reader?: AbortSignal, stopping?: AbortSignal } = {}): ReadableStreamDefaultReader<Uint8Array> {
  const never = new AbortController().signal
  return ndjson<Message>(work, {
    reader: signals.reader ?? never, stopping: signals.stopping ?? never, onError: error => ({ type: 'error', message: (error as Error).message })
  }).getReader()
}

async function readAll (reader: ReadableStreamDefaultReader<Uint8Array>): Promise<Message[]> {
  const messages: Message[] = []
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return messages
    messages.push(JSON.parse(decoder.decode(value)) as Message)
  }
}

const aborted = async (signal: AbortSignal): Promise<never> => await new Promise((_resolve, reject) => {
  signal.addEventListener('abort', () => { reject(signal.reason as Error) })
})

describe('api: streams', () => {
  it('keep messages in order and only the newest progress', async () => {
    const messages = await readAll(start(async sink => {
      for (let n = 0; n < 1000; n++) sink.progress({ type: 'progress', n })
      sink.send({ type: 'files' })
      for (let n = 1000; n < 2000; n++) sink.progress({ type: 'progress', n })
      sink.send({ type: 'done' })
    }))
    assert.deepEqual(messages, [{ type: 'progress', n: 999 }, { type: 'files' }, { type: 'progress', n: 1999 }, { type: 'done' }])
  })

  it('tell progress at most ten times a second', async () => {
    const began = performance.now()
    const messages = await readAll(start(async sink => {
      await new Promise<void>(resolve => {
        let n = 0
        const timer = setInterval(() => {
          sink.progress({ type: 'progress', n: n++ })
          if (performance.now() - began > 550) { clearInterval(timer); resolve() }
        }, 1)
      })
      sink.send({ type: 'done' })
    }))
    const seconds = (performance.now() - began) / 1000
    const told = messages.filter(message => message.type === 'progress').length
    assert.ok(told >= 3 && told <= seconds * 10 + 2, `${told} in ${seconds} s`)
    assert.equal(messages.at(-1)?.type, 'done')
  })

  it('wait for their reader, and hold one progress for it', async () => {
    let sent = 0
    const reader = start(async sink => {
      for (; sent < 10_000; sent++) sink.progress({ type: 'progress', n: sent })
      sink.send({ type: 'done' })
    })
    await new Promise(resolve => { setImmediate(resolve) })
    assert.equal(sent, 10_000, 'the work does not wait for the reader')
    assert.equal((await readAll(reader)).length, 2)
  })

  it('end with the error of the work', async () => {
    assert.deepEqual(await readAll(start(async () => { throw new Error('no disk') })), [{ type: 'error', message: 'no disk' }])
  })

  it('abort the work when the reader cancels or goes, and tell nobody', async () => {
    let signal: AbortSignal | undefined
    const reader = start(async (_sink, given) => { signal = given; await aborted(given) })
    const reading = reader.read()
    await reader.cancel()
    assert.equal((await reading).done, true)
    assert.equal(signal?.aborted, true)

    const gone = new AbortController()
    const other = readAll(start(async (_sink, given) => { await aborted(given) }, { reader: gone.signal }))
    gone.abort(new Error('went'))
    assert.deepEqual(await other, [])
  })

  it('end at once with the reason when the server stops, even if the work does not', async () => {
    const stopping = new AbortController()
    const reading = readAll(start(async sink => {
      sink.send({ type: 'files' })
      await new Promise(() => undefined)
    }, { stopping: stopping.signal }))
    stopping.abort(new Error('stopping'))
    assert.deepEqual(await reading, [{ type: 'files' }, { type: 'error', message: 'stopping' }])
  })
})
