/** Opening a complete local model through the loader, in a process that holds nothing but the loader. Prints milliseconds as JSON. */
import { open } from '../../src/loader/index.ts'

const [cid = '', socket = '', runs = '1000'] = process.argv.slice(2)
const times: number[] = []
for (let i = 0; i < Number(runs); i++) {
  const started = performance.now()
  const model = await open(cid, { socket })
  times.push(performance.now() - started)
  await model.close()
}
console.log(JSON.stringify(times))
