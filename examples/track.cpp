// track FOLDER WIDTH HEIGHT X Y W H < frames.rgb: follows a box through raw RGB frames and prints x,y,w,h of each.
#include <openvino/openvino.hpp>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

using Tensors = std::map<std::string, ov::Tensor>;
struct Box { double x, y, w, h; };              // corner and size, in pixels of the frame
struct Crop { double left, top, side; };        // a square of the frame

const int TEMPLATE = 112, SEARCH = 224;         // "sizes" of graphs.json: template_size, search_size,
const double NEAR = 2, WIDE = 4, WINDOW = 0.25; // template_factor, search_factor; the window of vltrack's Policy

class Graph {
    ov::CompiledModel model;
    ov::InferRequest request;

public:
    Graph(ov::Core& core, const std::string& file)
        : model(core.compile_model(file, "CPU", ov::inference_num_threads(1),
                                   ov::hint::inference_precision(ov::element::f32))),
          request(model.create_infer_request()) {}

    void operator()(Tensors& tensors) {         // reads and writes tensors by name
        for (const auto& port : model.inputs())
            for (const auto& name : port.get_names())  // one of them is that of graphs.json
                if (auto found = tensors.find(name); found != tensors.end()) request.set_tensor(port, found->second);
        request.infer();
        for (const auto& port : model.outputs()) {
            ov::Tensor made = request.get_tensor(port), kept(made.get_element_type(), made.get_shape());
            made.copy_to(kept);                 // the request writes over its own
            for (const auto& name : port.get_names())
                if (name[0] != '/') tensors[name] = kept;  // the others are of a graph's inside
        }
        if (auto keep = tensors.find("selection.keep_BN"); keep != tensors.end()) {
            std::vector<int64_t> order;         // LiteTrack: one graph of a step selects search tokens
            for (size_t n = 0; n < keep->second.get_size(); n++)
                if (keep->second.data<bool>()[n]) order.push_back(n);
            ov::Tensor kept(ov::element::i64, {1, order.size()});
            std::copy(order.begin(), order.end(), kept.data<int64_t>());
            tensors["selection.order_BR"] = kept;
        }
    }
};

Crop around(const Box& box, double factor) {
    double side = std::ceil(std::sqrt(box.w * box.h) * factor);
    return {box.x + box.w / 2 - side / 2, box.y + box.h / 2 - side / 2, side};
}

ov::Tensor cut(const std::vector<uint8_t>& frame, int width, int height, const Crop& crop, size_t size) {
    ov::Tensor image(ov::element::u8, {1, size, size, 3});
    auto pixel = [&](int x, int y, int c) {     // gray outside; vltrack takes the frame's mean color
        return x < 0 || y < 0 || x >= width || y >= height ? 127.0 : double(frame[(size_t(y) * width + x) * 3 + c]);
    };
    for (size_t row = 0; row < size; row++)
        for (size_t column = 0; column < size; column++) {
            double x = crop.left + (column + 0.5) * crop.side / size - 0.5;
            double y = crop.top + (row + 0.5) * crop.side / size - 0.5;
            int left = int(std::floor(x)), top = int(std::floor(y));
            double right = x - left, below = y - top;
            for (int c = 0; c < 3; c++) {
                double upper = pixel(left, top, c) * (1 - right) + pixel(left + 1, top, c) * right;
                double lower = pixel(left, top + 1, c) * (1 - right) + pixel(left + 1, top + 1, c) * right;
                double value = upper * (1 - below) + lower * below;
                image.data<uint8_t>()[(row * size + column) * 3 + c] = uint8_t(std::lround(value));
            }
        }
    return image;
}

ov::Tensor in_crop(const Box& box, const Crop& crop) {  // cx, cy, w, h in units of the crop
    ov::Tensor made(ov::element::f32, {1, 4});
    float* value = made.data<float>();
    value[0] = float((box.x + box.w / 2 - crop.left) / crop.side);
    value[1] = float((box.y + box.h / 2 - crop.top) / crop.side);
    value[2] = float(box.w / crop.side);
    value[3] = float(box.h / crop.side);
    return made;
}

Box choose(const Tensors& tensors, const Crop& crop) {  // the cell with the best score, near the center preferred
    const auto& center = tensors.at("center_BSS");
    const float *score = center.data<float>(), *presence = tensors.at("presence_BSS").data<float>();
    const size_t side = center.get_shape()[1];
    auto hann = [&](size_t n) { return 0.5 - 0.5 * std::cos(2 * M_PI * (n + 1) / (side + 1)); };
    size_t best = 0;
    double most = -1;
    for (size_t n = 0; n < side * side; n++) {
        double ranked = (1 - WINDOW) * score[n] * presence[n] + WINDOW * hann(n / side) * hann(n % side);
        if (ranked > most) most = ranked, best = n;
    }
    const float* box = tensors.at("boxes_BSS4").data<float>() + 4 * best;
    return {crop.left + (box[0] - box[2] / 2) * crop.side, crop.top + (box[1] - box[3] / 2) * crop.side,
            box[2] * crop.side, box[3] * crop.side};
}

int main(int, char** argv) {
    const std::string folder = argv[1];
    const int width = std::stoi(argv[2]), height = std::stoi(argv[3]);
    Box box{std::stod(argv[4]), std::stod(argv[5]), std::stod(argv[6]), std::stod(argv[7])};
    std::stringstream manifest;
    manifest << std::ifstream(folder + "/graphs.json").rdbuf();
    ov::Core core;
    std::map<std::string, Graph> graphs;
    auto load = [&](const std::string& call) {  // the graphs of a call, in order: "calls" of graphs.json
        const std::string text = manifest.str();
        std::smatch list;
        std::regex_search(text, list, std::regex("\"" + call + "\": \\[([^\\]]*)"));
        const std::string names = list[1];
        std::vector<Graph*> found;
        const std::regex name("[\\w-]+");
        for (std::sregex_iterator each(names.begin(), names.end(), name), end; each != end; ++each)
            found.push_back(&graphs.try_emplace(each->str(), core, folder + "/" + each->str() + ".onnx").first->second);
        return found;
    };
    const auto start = load("start_bbox"), step = load("step_bbox");
    Tensors tensors;
    std::vector<uint8_t> frame(size_t(width) * height * 3);
    for (int number = 0; std::cin.read(reinterpret_cast<char*>(frame.data()), frame.size()); number++) {
        const Crop wide = around(box, WIDE);
        ov::Tensor search = cut(frame, width, height, wide, SEARCH);
        if (number == 0) {
            const Crop near = around(box, NEAR);
            tensors["template"] = cut(frame, width, height, near, TEMPLATE);
            tensors["template_box"] = in_crop(box, near);
            tensors["context"] = search;
            tensors["context_box"] = in_crop(box, wide);
            for (Graph* graph : start) (*graph)(tensors);
        } else {
            tensors["search"] = search;
            for (Graph* graph : step) (*graph)(tensors);
            box = choose(tensors, wide);
        }
        std::printf("%.2f,%.2f,%.2f,%.2f\n", box.x, box.y, box.w, box.h);
    }
}
