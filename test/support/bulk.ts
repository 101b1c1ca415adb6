/** Loaded into every process that runs tests (.mocharc.json): many of them move blocks, with the collector set as the daemon's is. */
import { tuneForBulk } from '../../src/base/runtime.ts'

tuneForBulk()
