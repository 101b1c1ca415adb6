import assert from 'node:assert/strict'
import { UPSTREAM_FETCHES_MAX, UPSTREAM_FILES_AT_ONCE, UPSTREAM_PASSED_MAX, UPSTREAM_SMALL_FETCHES_MAX, systemClock } from '../../../src/base/index.ts'
import { Upstream } from '../../../src/origin/upstream.ts'
import { Hub } from '../../support/hub.ts'

describe('origin: sockets to a Hub', () => {
  it('are left for a question when as many files come as may', async () => {
    await using hub = await Hub.start()
    hub.push('a/b', { 'config.json': Buffer.from('{}') })
    const over = new AbortController()
    const { signal } = over
    const upstream = new Upstream({ url: hub.url, userAgent: 'test', clock: systemClock, counters: { requests: { ok: 0, refused: 0, busy: 0, failed: 0 }, bytes: 0, fetched: 0, failed: 0, shared: 0 } })
    const nobody = { token: undefined }
    const ask = async (): ReturnType<Upstream['model']> => await upstream.model('a/b', 'main', nobody, { signal, timeoutMs: 3_000 })
    try {
      const model = await ask()
      const [file] = model.files
      assert.ok(file !== undefined)
      const files = (UPSTREAM_FETCHES_MAX + UPSTREAM_SMALL_FETCHES_MAX) * UPSTREAM_FILES_AT_ONCE + UPSTREAM_PASSED_MAX
      hub.faults.stall = { after: 0, times: files }
      const reading = Array.from({ length: files }, async () => { for await (const _ of (await upstream.read(model, file, { offset: 0, end: file.size }, nobody, signal)).body); })
      const ended = Promise.allSettled(reading)
      assert.equal((await ask()).commit, model.commit)
      over.abort(new Error('the test is over'))
      await ended
    } finally {
      over.abort(new Error('the test is over'))
      upstream.stop()
    }
  })
})
